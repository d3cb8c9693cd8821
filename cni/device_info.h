// The device-info file that Multus publishes in network-status (Network Plumbing WG device
// information specification 1.1.0).
#pragma once

#include <string>

namespace vdpa::cni {

// Creates `path` for a vhost-user socket at `socket` (as the pod sees it) unless somebody has: the
// device plugin's copy stays. Returns whether it was created. Throws std::system_error.
bool createDeviceInfo(const std::string& path, const std::string& socket);

}  // namespace vdpa::cni
