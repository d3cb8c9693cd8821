// The default MAC address of an interface, if none is requested.
#pragma once

#include <functional>

#include "common/mac_address.h"
#include "deviceplugin/datapath/model/owner.h"

namespace vdpa::datapath {

// Locally administered, unicast, and always the same for a pod of the same name; `taken` says
// whether another interface has an address.
MacAddress defaultMac(const Owner& owner, const std::function<bool(const MacAddress&)>& taken);

}  // namespace vdpa::datapath
