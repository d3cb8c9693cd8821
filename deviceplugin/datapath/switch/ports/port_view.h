// Makes the pollers' view of a port from its settings.
#pragma once

#include <cstdint>

#include "common/port_policy.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"

namespace vdpa::vswitch {

// The limits that a view refers to. They outlive a change of the settings, so that a pod gets no
// new credit by it.
struct PortLimits {
  explicit PortLimits(uint64_t cyclesPerSecond)
      : send(cyclesPerSecond), receive(cyclesPerSecond), storm(cyclesPerSecond) {}
  RateLimit send, receive;  // bytes
  RateLimit storm;          // frames to everybody
};

// Each setting has a value. The view has no receive queues yet, as of a port that is not connected.
// Sets the limits.
PortView viewOf(const PortSettings& settings, const PortPolicy& policy, PortLimits& limits);

// The VLANs whose broadcasts the port gets; 0 stands for frames without a VLAN.
VlanSet vlansOf(const PortView& view);

}  // namespace vdpa::vswitch
