// How a vDPA device is made: the attributes of `vdpa dev add`, what of them a parent can do, and
// the ways to make it that are tried.
//
// Sources: vdpa_nl_cmd_dev_add_set_doit() of drivers/vdpa/vdpa.c and mlx5_vdpa_dev_add() of
// drivers/vdpa/mlx5/net/mlx5_vnet.c in Linux 6.12.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vdpa {

struct VdpaAttributes {
  // Absent: not passed, the driver's own choice. 0: all that the parent has.
  std::optional<unsigned> queuePairs;
  std::optional<uint64_t> features;
  unsigned mtu = 0;  // bytes; 0: the parent's
  std::string mac;   // empty: the parent's
  bool operator==(const VdpaAttributes&) const = default;
};

// What the parent's driver lets be set, and when; the plugin takes them from common/vdpa_drivers.h.
struct VdpaRules {
  std::string driver;        // for messages; empty: not known
  bool macWhenMade = false;  // an attribute of `vdpa dev add`
  bool mtuWhenMade = false;  //
  bool macLater = false;     // `vdpa dev set` gives a device another one that it shows
  bool operator==(const VdpaRules&) const = default;
};

// A management device, as far as it limits the attributes; 0: not known.
struct VdpaParent {
  std::string name;  // "pci/0000:65:00.2"
  unsigned maxVirtqueues = 0;
  uint64_t features = 0;
  bool hasMac = false;  // a device that is made without a MAC shows one
};

// "4 queue pairs, mtu 9000, all features"; "the driver's defaults" if there are none.
std::string describe(const VdpaAttributes& attributes);

// Why this parent can't make such a device, with what it can; empty: it may.
std::string unsupported(const VdpaAttributes& attributes, const VdpaParent& parent);

// Whether it matters if the parent has a MAC: its features are listed with MAC, and no MAC is
// given.
bool dependsOnMac(const VdpaAttributes& wanted, const VdpaParent& parent);

// The attributes as they are passed, without "all": first as wanted. The second, if there is one,
// is for when the kernel refuses the first with EINVAL or EOPNOTSUPP: it leaves out what nobody
// asked for, as kernels need that don't know these attributes yet.
//
// The feature MAC is never listed without a MAC for a parent that has none, whoever asked for it:
// mlx5_vdpa_dev_add() takes a path for its errors then ("No mac address provisioned?") that can
// crash the kernel (CVE-2024-47687).
std::vector<VdpaAttributes> waysToMake(const VdpaAttributes& wanted, const VdpaParent& parent);

}  // namespace vdpa
