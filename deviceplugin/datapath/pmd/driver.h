// The DPDK vDPA drivers this program can run, and what each needs of the device and of the node.
#pragma once

#include <string>

namespace vdpa {

struct Driver {
  std::string name;
  std::string library;       // DPDK's driver, without version: "librte_vdpa_ifc.so"
  std::string kernelDriver;  // the function must be bound to
  std::string selector;      // devarg that asks for vDPA: other drivers know these devices too
  unsigned megabytes;        // of DPDK memory it needs
  std::string devices;       // which it knows, for messages
};

// Throws std::runtime_error that lists the drivers there are.
const Driver& findDriver(const std::string& name);

// Throws std::runtime_error that says what is wrong with the PCI function `address` and what to do,
// unless `driver` can take it. `sysfs` is /sys.
void checkFunction(const std::string& sysfs, const std::string& address, const Driver& driver);

}  // namespace vdpa
