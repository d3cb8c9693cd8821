// The DPDK vDPA drivers this program can run, and what each needs of the device and of the node.
#pragma once

#include <string>

namespace vdpa::pmd {

struct Driver {
  std::string name;
  std::string library;       // DPDK's driver, without version: "librte_vdpa_ifc.so"
  std::string kernelDriver;  // the function must be bound to
  std::string selector;      // devarg that asks for vDPA: other drivers know these devices too
  unsigned megabytes;        // of DPDK memory it needs
};

// The functions that it knows, for messages: "15b3:101e, 15b3:101d".
std::string functionsOf(const Driver& driver);

// The device's arguments for DPDK: the driver's selector, the operator's arguments, and defaults
// for those that the operator doesn't give.
std::string devargsOf(const Driver& driver, const std::string& operators);

// Throws std::runtime_error that lists the known drivers.
const Driver& findDriver(const std::string& name);

// Throws std::runtime_error that says what is wrong with the PCI function `address` and what to do,
// unless `driver` can use it. `sysfs` is /sys.
void checkFunction(const std::string& sysfs, const std::string& address, const Driver& driver);

}  // namespace vdpa::pmd
