// The settings of a vdpa-switch's port as messages of the control channel.
#pragma once

#include <string>

#include "common/port_policy.h"
#include "common/port_settings.h"
#include "control.pb.h"

namespace vdpa {

// The settings that a port of the switch has, all but the VLAN's QoS and protocol and the minimum
// rate. `id` is the device's.
control::Port controlFromPort(const std::string& id, const PortSettings& settings);
void setPolicy(control::Port& message, const PortPolicy& policy);

// All settings; one that the message can't contain is the default, an absent MTU is `maxMtu`.
// Throws std::runtime_error or std::invalid_argument that names a value out of range.
PortSettings portFromControl(const control::Port& message, unsigned maxMtu);
// The same for the policy. Without one, as 0.1.0 sends a port, offloads are on and nothing is
// limited.
PortPolicy policyFromControl(const control::Port& message);

}  // namespace vdpa
