// The settings that a network may request of any port, and of one of vdpa-switch.
#pragma once

#include <string>

#include "common/port_settings.h"

namespace vdpa::datapath {

// Throws RefusedError (invalidArgument) "cannot set up DEVICE: PROBLEM".
[[noreturn]] void refuseSettings(const std::string& deviceId, const std::string& problem);

// Throws RefusedError (invalidArgument) that names a number which no device can have.
void checkNumbers(const std::string& deviceId, const PortSettings& requested);

// Throws RefusedError (invalidArgument) that names a setting which only a port of vdpa-switch can
// have.
void refuseSwitchSettings(const std::string& deviceId, const PortSettings& requested);

// The settings that result from the requested ones; an absent MAC stays absent. Throws RefusedError
// (invalidArgument), naming the setting, if a software port of a switch with `switchMtu` cannot
// have it. Without a request: link up, no VLAN, the switch's MTU, no spoof check.
PortSettings softwarePort(const std::string& deviceId, const PortSettings& requested,
                          unsigned switchMtu);

}  // namespace vdpa::datapath
