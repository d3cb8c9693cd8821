// The MAC address of an interface for which nobody names one.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// Locally administered, unicast, and the same again for a pod of the same name; `taken` tells which
// ones others have.
std::string defaultMac(const Owner& owner, const std::function<bool(const std::string&)>& taken);

}  // namespace vdpa::datapath
