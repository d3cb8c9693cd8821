// The node's netdevs as the kernel's netlink reports them, with the settings of VFs, which sysfs
// does not have.
#pragma once

#include "common/json.h"
#include "common/netlink/message.h"

namespace vdpa::ctl {

// Of one message of a dump.
nlohmann::json linkOf(const netlink::Message& message);

// All, of this process's network namespace. Throws std::system_error.
nlohmann::json dumpLinks();

}  // namespace vdpa::ctl
