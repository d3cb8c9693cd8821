// Discovery in one call.
#pragma once

#include <string>

#include "common/netlink/vdpa_netlink.h"
#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {

inline constexpr const char* kNetworkUse = "rtnetlink";

// One pass over `sysfs` (/sys), one dump of the kernel's vdpa devices and one of its network
// configuration. Takes tens of microseconds per VF. Never throws: it skips unreadable entries, with
// a reason in `skipped`. If the network configuration can't be read (kNetworkUse in `skipped`), the
// host counts as using every netdev.
Snapshot takeSnapshot(const std::string& sysfs, VdpaNetlink& netlink);

}  // namespace vdpa::plugin
