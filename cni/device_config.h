// The settings that a network requests for its device, for ADD and CHECK: sriov-cni's keys, the
// device ID and the MAC.
#pragma once

#include <optional>
#include <string>

#include "cni/environment.h"
#include "cni/network_config.h"

namespace vdpa::cni {

struct DeviceConfig {
  std::string deviceId;
  std::string mac;
  std::optional<unsigned> vlan, vlanQos, minTxRate, maxTxRate;
  std::string vlanProto;
  std::optional<bool> spoofCheck, trust;
  std::string linkState;
  unsigned mtu = 0;
  std::string infoFile;  // runtimeConfig.CNIDeviceInfoFile; empty: none
};

// Throws Error (invalidConfig) naming the key, the value and what was expected. The first MAC of
// runtimeConfig.mac, CNI_ARGS MAC, args.cni.mac and mac counts.
DeviceConfig parseDeviceConfig(const NetworkConfig& network, const Environment& environment);

// Only its infoFile, for DEL. Throws as parseDeviceConfig() does.
std::string parseDeviceInfo(const NetworkConfig& network, const Environment& environment);

}  // namespace vdpa::cni
