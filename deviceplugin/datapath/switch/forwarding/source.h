// A transmit queue, as the poller that serves it sees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/pace.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/turn.h"

namespace vdpa::vswitch {

// Made and freed by the control thread, used by the poller.
struct Source {
  Source(TransmitQueue& of, uint64_t hz) : queue(of), port(of.port->number), pace(hz), turn(hz) {}

  TransmitQueue& queue;
  const MacTable::Port port;
  Pace pace;
  Turn turn;
  Memo memo;
  size_t index = 0;     // its place among all
  size_t hotIndex = 0;  // and among the hot ones, if it is
  bool hot = false;
  bool kicks = false;  // the pod can notify
};

}  // namespace vdpa::vswitch
