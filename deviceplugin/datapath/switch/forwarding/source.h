// A transmit queue, as the poller that serves it sees it.
#pragma once

#include <cstdint>
#include <list>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/pace.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/turn.h"

namespace vdpa::vswitch {

struct Source;
// They are moved between lists, which neither allocates nor frees.
using SourceList = std::list<Source>;

// Made and freed by the control thread, used by the poller.
struct Source {
  Source(TransmitQueue& of, uint64_t hz) : queue(of), port(of.port->number), pace(hz), turn(hz) {}

  TransmitQueue& queue;
  const MacTable::Port port;
  Pace pace;
  Turn turn;
  Memo memo;
  SourceList::iterator place;  // among the hot or the cold ones
  bool hot = false;
  bool kicks = false;  // the pod can notify
};

}  // namespace vdpa::vswitch
