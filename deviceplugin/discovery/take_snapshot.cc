#include "deviceplugin/discovery/take_snapshot.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <exception>

#include "common/netlink/vdpa_netlink.h"
#include "deviceplugin/discovery/host_use.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/discovery/sysfs_scan.h"

namespace vdpa::plugin {
namespace {

constexpr uint32_t kNetworkDevice = 1;  // virtio's device ID

// The device's pairs, limited to those that the driver provides queues for: vp-vdpa provides as
// many as the device shows before its features are known.
unsigned queuePairs(const VdpaDeviceInfo& info) {
  unsigned pairs = std::max<unsigned>(1, info.maxVirtqueues / 2);
  if (info.maxQueuePairs > 0) pairs = std::min<unsigned>(pairs, info.maxQueuePairs);
  return pairs;
}

void addVdpa(const VdpaNetlink::Dump& dump, Snapshot& snapshot) {
  for (const auto& info : dump.management) {
    const bool pci = info.name.starts_with("pci/");
    snapshot.managementDevices[info.name] = {info.name, pci ? info.name.substr(4) : "",
                                             (info.classes >> kNetworkDevice & 1) != 0,
                                             info.maxVirtqueues, info.features};
  }
  for (const auto& [address, part] : snapshot.parts)
    if (const auto found = snapshot.managementDevices.find("auxiliary/" + part);
        found != snapshot.managementDevices.end())
      found->second.pciAddress = address;
  for (const auto& info : dump.devices) {
    const auto device = snapshot.vdpaDevices.find(info.name);
    if (device == snapshot.vdpaDevices.end())
      continue;  // it appeared or vanished between scan and dump
    device->second.managementDevice = info.managementDevice;
    device->second.queuePairs = queuePairs(info);
    device->second.queueSize = info.maxQueueSize;
    device->second.mac = info.mac;
    device->second.mtu = info.mtu;
    device->second.features = info.features;
    device->second.isNetwork = info.deviceId == kNetworkDevice;
  }
  if (!dump.problem.empty()) snapshot.skipped["vdpa"] = dump.problem;
}

}  // namespace

Snapshot takeSnapshot(const std::string& sysfs, VdpaNetlink& netlink) {
  Snapshot snapshot;
  scanSysfs(sysfs, snapshot);
  addVdpa(netlink.dump(), snapshot);
  try {
    const auto uses = findHostUse(dumpNetwork());
    for (auto& [name, netdev] : snapshot.netdevs)
      if (const auto use = uses.find(name); use != uses.end()) netdev.hostUse = use->second;
  } catch (const std::exception& error) {
    snapshot.skipped[kNetworkUse] = error.what();
    for (auto& [name, netdev] : snapshot.netdevs)
      netdev.hostUse = fmt::format("cannot tell whether the host uses it: {}", error.what());
  }
  return snapshot;
}

}  // namespace vdpa::plugin
