// What a network's configuration may ask of a hardware device.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// `port` with what is asked for. Throws RefusedError (invalidArgument) that names a value which no
// device can have.
PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings,
                              PortSettings port);
// The same without a port: MAC and MTU stay empty unless they are asked for, since only the opened
// device tells them.
inline PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings) {
  PortSettings port;
  port.mtu = 0;
  return hardwareSettings(deviceId, settings, port);
}

// Once the device has told what it has: throws RefusedError (invalidArgument) if that is not what
// was asked for, else completes `port`. An empty `mac` and an `mtu` of 0 are not told.
void completeSettings(const std::string& deviceId, PortSettings& port, const std::string& mac,
                      unsigned mtu);

}  // namespace vdpa::datapath
