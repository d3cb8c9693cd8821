#include "deviceplugin/datapath/model/offered_devices.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "common/backend.h"
#include "common/naming.h"
#include "common/paths.h"
#include "common/port_policy.h"
#include "common/unix_socket.h"
#include "common/uplink_config.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition)
    throw RefusedError(Refusal::invalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

bool isDeviceId(const std::string& id) {
  if (id.empty() || id.size() > 63 || id[0] == '.') return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

void checkDevice(const std::string& id, const DeviceConfig& device) {
  const auto need = [&](const std::string& value, const char* what) {
    require(!value.empty(), "device {}: the {} backend needs {}", id, nameOf(device.backend), what);
  };
  if (device.backend == BackendKind::kernel) {
    need(device.vdpa, "the name of a vDPA device");
    require(isDeviceId(device.vdpa), "device {}: '{}' is not a vDPA device's name", id,
            device.vdpa);
    if (device.provision) need(device.managementDevice, "a management device");
    const unsigned mtu = device.attributes.mtu;
    require(mtu == 0 || (mtu >= 68 && mtu <= 65535), "device {}: MTU {}; expected 68 to 65535", id,
            mtu);
    const unsigned pairs = device.attributes.queuePairs.value_or(0);
    require(pairs <= 256, "device {}: {} queue pairs; expected at most 256", id, pairs);
  } else if (device.backend == BackendKind::dpdk) {
    need(device.pciAddress, "a PCI address");
    need(device.dpdkDriver, "a driver");
  }
  require(device.pciAddress.empty() || isPciAddress(device.pciAddress),
          "device {}: '{}' is not a PCI address", id, device.pciAddress);
  // It becomes part of a path below /sys/bus/pci/drivers.
  require(device.pciDriver.empty() || isDeviceId(device.pciDriver),
          "device {}: '{}' is not a driver's name", id, device.pciDriver);
  require(device.backend == BackendKind::kernel || device.attach == Attach::vhostUser,
          "device {}: attach {} needs the kernel backend", id, nameOf(device.attach));
}

}  // namespace

void checkSocketPaths(const std::vector<Resource>& resources, const Paths& paths) {
  const auto check = [](const Resource& resource, const std::string& path) {
    require(path.size() <= kMaxSocketPath,
            "resource {} needs the socket {}, which has {} bytes; at most {} fit: choose a shorter "
            "name, or a shorter --run-dir",
            resource.name, path, path.size(), kMaxSocketPath);
  };
  for (const auto& resource : resources) {
    const std::string name = fileName(resource.name);
    if (resource.hasPorts()) check(resource, paths.switchControl(name));
    for (const auto& [id, device] : resource.devices) {
      if (device.attach != Attach::vhostUser) continue;
      check(resource, paths.workerControl(id));
      check(resource, paths.preparedPodSocket(id));
      if (device.backend == BackendKind::software) check(resource, paths.switchPort(name, id));
      if (device.backend == BackendKind::dpdk) check(resource, paths.pmdControl(id));
    }
  }
}

bool Resource::hasPorts() const {
  return std::any_of(devices.begin(), devices.end(), [](const auto& device) {
    return device.second.backend == BackendKind::software;
  });
}

void checkDeviceSet(const std::vector<Resource>& resources) {
  std::set<std::string> files, ids;
  for (const auto& resource : resources) {
    const size_t slash = resource.name.find('/');
    require(slash != std::string::npos && isResourcePrefix(resource.name.substr(0, slash)) &&
                isResourceName(resource.name.substr(slash + 1)),
            "resource '{}': expected prefix/name such as vdpa.io/nic", resource.name);
    require(files.insert(fileName(resource.name)).second, "resource {} is given twice",
            resource.name);
    const auto& software = resource.software;
    require(software.queuePairs >= 1 && software.queuePairs <= 16,
            "resource {}: {} queue pairs; expected 1 to 16", resource.name, software.queuePairs);
    require(software.mtu >= 68 && software.mtu <= 9000, "resource {}: MTU {}; expected 68 to 9000",
            resource.name, software.mtu);
    const UplinkConfig& uplink = software.uplink;
    require(uplink.pci.empty() || isPciAddress(uplink.pci),
            "resource {}: uplink '{}' is not a PCI address", resource.name, uplink.pci);
    require(uplink.netdev.empty() || uplink.pci.empty(),
            "resource {}: netdev {} and PCI function {}; expected one uplink", resource.name,
            uplink.netdev, uplink.pci);
    require(resource.policy.stormLimit <= kMaxStormLimit,
            "resource {}: storm limit {}; expected 0 to {}", resource.name,
            resource.policy.stormLimit, kMaxStormLimit);
    require(resource.socket.mode <= 0777, "resource {}: socket mode {:o}; expected at most 777",
            resource.name, resource.socket.mode);
    for (const auto& [id, device] : resource.devices) {
      require(isDeviceId(id), "resource {}: '{}' is not a device ID", resource.name, id);
      require(ids.insert(id).second, "resource {}: device {} is given twice", resource.name, id);
      checkDevice(id, device);
    }
  }
}

}  // namespace vdpa::datapath
