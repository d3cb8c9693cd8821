// What sysfs shows: functions, slices of functions, the vdpa bus, and which netdev is whose.
//
// Sources: Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-net, sysfs-bus-vdpa, sysfs-dev in
// Linux 6.12.
#pragma once

#include <string>

#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {

// In one pass, without a file operation more than these of a VF: its `uevent` (open, read, close)
// and `iommu_group`, its PF's link to it, and the links to its vDPA device and that one's character
// device. Entries that vanish or can't be read are skipped with a reason.
void scanSysfs(const std::string& sysfs, Snapshot& snapshot);

}  // namespace vdpa::plugin
