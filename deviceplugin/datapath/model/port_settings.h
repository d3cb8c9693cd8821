// What a port of vdpa-switch can be set to.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// The settings in force for what is asked, except for an absent MAC, which stays empty. Throws
// RefusedError (invalidArgument) that names the setting for what a software port of a switch with
// `switchMtu` cannot do. Without a request: link up, no VLAN, the switch's MTU, no spoof check.
PortSettings softwarePort(const std::string& deviceId, const Settings& settings,
                          unsigned switchMtu);

// In lower case; throws RefusedError (invalidArgument) for anything but a unicast address.
std::string checkedMac(const std::string& deviceId, const std::string& mac);

}  // namespace vdpa::datapath
