// Opens an uplink of vdpa-switch-dpdk, of whichever kind its options name.
#pragma once

#include <memory>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {

// Call it before other threads run, and once in a process. Throws std::runtime_error that names the
// uplink, the problem and the remedy.
std::unique_ptr<Uplink> openUplink(const UplinkOptions& options);

}  // namespace vdpa::vswitch
