// Devices that pods hold although the node no longer has them.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

// Adds the devices that pods still hold to those that discovery found: each stays in its resource's
// list, unhealthy and with the reason, since the kubelet would otherwise forget that its pod has
// it. If a device vanished while this program did not run, only its ID is known. `held` has pairs
// of resource and device ID.
std::vector<ResourceOffer> withHeldDevices(
    const Offers& found, const std::vector<ResourceOffer>& before,
    const std::set<std::pair<std::string, std::string>>& held);

}  // namespace vdpa::plugin
