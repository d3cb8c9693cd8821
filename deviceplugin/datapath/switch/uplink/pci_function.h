// Uplinks that are PCI functions, driven by DPDK alone.
#pragma once

#include <string>

#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {

// Throws std::runtime_error that says what is wrong with the PCI function `address` and what to do,
// unless DPDK can drive it: it must be bound to vfio-pci, behind an IOMMU, and this process must be
// allowed to open it. `sysfs` is /sys, `dev` /dev.
void checkUplinkFunction(const std::string& sysfs, const std::string& dev,
                         const std::string& address);

// The same errors. Loads DPDK's drivers of NICs.
UplinkDevice pciDevice(const UplinkOptions& options);

}  // namespace vdpa::vswitch
