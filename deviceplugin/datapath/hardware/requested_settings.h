// The settings that a network's configuration may request of a hardware device.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// `port` with the requested settings. Throws RefusedError (invalidArgument) that names a value
// which no device can have.
PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings,
                              PortSettings port);
// The same without a port: MAC and MTU stay empty unless requested, since only the opened device
// reports them.
inline PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings) {
  PortSettings port;
  port.mtu = 0;
  return hardwareSettings(deviceId, settings, port);
}

// Once the device has reported its values: throws RefusedError (invalidArgument) if they differ
// from the requested ones, else completes `port`. An empty `mac` and an `mtu` of 0 were not
// reported.
void completeSettings(const std::string& deviceId, PortSettings& port, const std::string& mac,
                      unsigned mtu);

}  // namespace vdpa::datapath
