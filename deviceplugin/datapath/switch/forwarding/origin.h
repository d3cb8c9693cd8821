// Where a burst comes from.
#pragma once

#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"

namespace vdpa::vswitch {

struct Origin {
  Port& port;
  const PortView& view;
  Memo& memo;
  uint16_t pair;  // number of the queue pair, which spreads flows over a destination's queues

  bool isUplink() const { return port.number == kUplinkPort; }
};

// Whether a port has frames of this VLAN, tagged or not.
inline bool isMember(const PortView& view, uint16_t vlan) {
  if (!view.trunk) return view.vlan == vlan;
  return vlan != 0 && (view.vlan == vlan || view.trunk->test(vlan));
}

}  // namespace vdpa::vswitch
