// The possible settings of a port of vdpa-switch.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// The settings that result from the requested ones; an absent MAC stays empty. Throws RefusedError
// (invalidArgument), naming the setting, if a software port of a switch with `switchMtu` cannot
// have it. Without a request: link up, no VLAN, the switch's MTU, no spoof check.
PortSettings softwarePort(const std::string& deviceId, const Settings& settings,
                          unsigned switchMtu);

// In lower case; throws RefusedError (invalidArgument) for anything but a unicast address.
std::string checkedMac(const std::string& deviceId, const std::string& mac);

}  // namespace vdpa::datapath
