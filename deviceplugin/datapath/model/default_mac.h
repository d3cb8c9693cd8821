// The default MAC address of an interface, if none is requested.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// Locally administered, unicast, and always the same for a pod of the same name; `taken` says
// whether another interface has an address.
std::string defaultMac(const Owner& owner, const std::function<bool(const std::string&)>& taken);

}  // namespace vdpa::datapath
