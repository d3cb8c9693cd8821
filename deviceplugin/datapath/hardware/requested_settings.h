// The settings that a network's configuration may request of a hardware device.
#pragma once

#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/port_settings.h"

namespace vdpa::datapath {

// `port` with the requested settings. Throws RefusedError (invalidArgument) that names a value
// which no device can have.
PortSettings hardwareSettings(const std::string& deviceId, PortSettings requested,
                              PortSettings port);
// The same without a port: MAC and MTU stay absent unless requested, since only the opened device
// reports them.
inline PortSettings hardwareSettings(const std::string& deviceId, const PortSettings& requested) {
  PortSettings port = defaultSettings();
  port.mtu.reset();
  return hardwareSettings(deviceId, requested, port);
}

// Once the device has reported its values: throws RefusedError (invalidArgument) if they differ
// from the requested ones, else completes `port`. An absent `mac` and an `mtu` of 0 were not
// reported.
void completeSettings(const std::string& deviceId, PortSettings& port,
                      const std::optional<MacAddress>& mac, unsigned mtu);

}  // namespace vdpa::datapath
