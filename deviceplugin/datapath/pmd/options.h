// The options of a vdpa-pmd.
#pragma once

#include <string>

namespace vdpa::pmd {

struct PmdOptions {
  std::string device;  // ID, for messages
  std::string pci;     // address of the function; empty with `vdev`
  std::string driver;  // ifc, mlx5 or sfc; with `vdev` only a name
  std::string devargs;
  std::string vdev;    // a device of a driver outside DPDK, in the syntax of EAL's --vdev
  std::string plugin;  // the shared object with that driver
  std::string socket;
  std::string control;
  int controlFd = -1;  // already listens there; -1: none
  std::string sysfs = "/sys";
  unsigned megabytes = 0;  // for DPDK's and the driver's own structures; 0: the driver's default
};

}  // namespace vdpa::pmd
