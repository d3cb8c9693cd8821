// Reads sysfs: functions, slices of functions, the vdpa bus, and the netdevs of each.
//
// Sources: Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-net, sysfs-bus-vdpa, sysfs-dev in
// Linux 6.12.
#pragma once

#include <string>

#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {

// One pass, with only these file operations per VF: its `uevent` (open, read, close) and
// `iommu_group`, its PF's link to it, and the links to its vDPA device and to that device's
// character device. Skips entries that vanish or can't be read, with a reason.
void scanSysfs(const std::string& sysfs, Snapshot& snapshot);

}  // namespace vdpa::plugin
