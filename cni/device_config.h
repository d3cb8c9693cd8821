// The settings that a network requests for its device, for ADD and CHECK: sriov-cni's keys, the
// device ID and the MAC.
#pragma once

#include <string>

#include "cni/environment.h"
#include "cni/network_config.h"
#include "common/port_settings.h"

namespace vdpa::cni {

struct DeviceConfig {
  std::string deviceId;
  PortSettings settings;  // requested
  std::string infoFile;   // runtimeConfig.CNIDeviceInfoFile; empty: none
};

// Throws Error (invalidConfig) naming the key, the value and what was expected. The first MAC of
// runtimeConfig.mac, CNI_ARGS MAC, args.cni.mac and mac counts.
DeviceConfig parseDeviceConfig(const NetworkConfig& network, const Environment& environment);

// Only its infoFile, for DEL. Throws as parseDeviceConfig() does.
std::string parseDeviceInfo(const NetworkConfig& network, const Environment& environment);

}  // namespace vdpa::cni
