// The whole of discovery in one call.
#pragma once

#include <string>

#include "common/vdpa_netlink.h"
#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {

inline constexpr const char* kNetworkUse = "rtnetlink";

// One pass over `sysfs` (/sys), one dump of the kernel's vdpa devices and one of its network
// configuration. Takes tens of microseconds for each VF. Never throws: what can't be read is left
// out, with a reason in `skipped`; without the network configuration, under kNetworkUse there, the
// host is taken to need every netdev.
Snapshot takeSnapshot(const std::string& sysfs, VdpaNetlink& netlink);

}  // namespace vdpa::plugin
