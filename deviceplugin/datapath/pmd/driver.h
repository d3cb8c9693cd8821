// What a DPDK vDPA driver needs of the device and of the node.
#pragma once

#include <string>

#include "common/vdpa_drivers.h"

namespace vdpa::pmd {

// The functions that it knows, for messages: "15b3:101e, 15b3:101d".
std::string functionsOf(const DpdkVdpaDriver& driver);

// The device's arguments for DPDK: the driver's selector, the operator's arguments, and defaults
// for those that the operator doesn't give.
std::string devargsOf(const DpdkVdpaDriver& driver, const std::string& operators);

// Throws std::runtime_error that lists the known drivers.
const DpdkVdpaDriver& findDriver(const std::string& name);

// Throws std::runtime_error that says what is wrong with the PCI function `address` and what to do,
// unless `driver` can use it. `sysfs` is /sys.
void checkFunction(const std::string& sysfs, const std::string& address,
                   const DpdkVdpaDriver& driver);

}  // namespace vdpa::pmd
