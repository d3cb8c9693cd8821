// Finds in sysfs where a VF is configured: at its PF's netdev.
#pragma once

#include <optional>
#include <string>

namespace vdpa::datapath {

struct VfPlace {
  std::string pf;        // netdev
  unsigned pfIndex = 0;  // that netdev's interface index
  unsigned number = 0;   // the VF's, among those of its PF
  std::string driver;    // the PF's
};

// "VF 3 of ens1f0 (mlx5_core)".
std::string describe(const VfPlace& place);

// One walk over the PF's directory. Nothing if this function is not a VF, or its PF has no netdev
// in the network namespace of this sysfs.
std::optional<VfPlace> findVfPlace(const std::string& sysfs, const std::string& pciAddress);

}  // namespace vdpa::datapath
