// Whether an owner names what it must, and how it is called in messages.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// Throws RefusedError (invalidArgument).
void checkOwner(const Owner& owner);

// "default/pod-1 (container 0123456789ab…, interface net1)".
std::string describeOwner(const Owner& owner);

}  // namespace vdpa::datapath
