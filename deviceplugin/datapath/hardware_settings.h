// What a network's configuration may ask of a hardware device.
#pragma once

#include <string>

#include "deviceplugin/datapath/attachment.h"

namespace vdpa {

// The settings in force, without those that only the opened device tells: its MAC and MTU stay
// empty unless they are asked for. Throws RefusedError (invalidArgument) that names a setting which
// can't be had.
PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings);

// Once the device has told what it has: throws RefusedError (invalidArgument) if that is not what
// was asked for, else completes `port`. An empty `mac` and an `mtu` of 0 are not told.
void completeSettings(const std::string& deviceId, PortSettings& port, const std::string& mac,
                      unsigned mtu);

}  // namespace vdpa
