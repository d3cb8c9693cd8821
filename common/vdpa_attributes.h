// How a vDPA device is made: the attributes of `vdpa dev add`, which of them a parent supports, and
// the variants that are tried.
//
// Sources: vdpa_nl_cmd_dev_add_set_doit() of drivers/vdpa/vdpa.c and mlx5_vdpa_dev_add() of
// drivers/vdpa/mlx5/net/mlx5_vnet.c in Linux 6.12.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/mac_address.h"

namespace vdpa {

struct VdpaAttributes {
  // Absent: not passed, the driver's own choice. 0: all that the parent has.
  std::optional<unsigned> queuePairs;
  std::optional<uint64_t> features;
  unsigned mtu = 0;               // bytes; 0: the parent's
  std::optional<MacAddress> mac;  // absent: the parent's
  bool operator==(const VdpaAttributes&) const = default;
};

// The settings that the parent's driver supports, and when; the plugin takes them from
// common/vdpa_drivers.h.
struct VdpaRules {
  std::string driver;        // for messages; empty: not known
  bool macWhenMade = false;  // an attribute of `vdpa dev add`
  bool mtuWhenMade = false;  //
  bool macLater = false;     // `vdpa dev set` changes it, and the device shows the new one
  bool operator==(const VdpaRules&) const = default;
};

// The limits that a management device sets on the attributes; 0: not known.
struct VdpaParent {
  std::string name;  // "pci/0000:65:00.2"
  unsigned maxVirtqueues = 0;
  uint64_t features = 0;
  bool hasMac = false;  // a device made without a MAC shows one
};

// "4 queue pairs, mtu 9000, all features"; "the driver's defaults" if there are none.
std::string describe(const VdpaAttributes& attributes);

// Why this parent can't make such a device, with its limit; empty: it probably can.
std::string unsupported(const VdpaAttributes& attributes, const VdpaParent& parent);

// Whether it matters if the parent has a MAC: the features include MAC, but no MAC is given.
bool dependsOnMac(const VdpaAttributes& wanted, const VdpaParent& parent);

// The attributes to pass, without "all": first as wanted. The second set, if there is one, is for
// when the kernel refuses the first with EINVAL or EOPNOTSUPP: it leaves out attributes that were
// not requested, for kernels that don't know them yet.
//
// Never lists the feature MAC without a MAC for a parent that has none, even if it was requested:
// mlx5_vdpa_dev_add() would take an error path ("No mac address provisioned?") that can crash the
// kernel (CVE-2024-47687).
std::vector<VdpaAttributes> waysToMake(const VdpaAttributes& wanted, const VdpaParent& parent);

}  // namespace vdpa
