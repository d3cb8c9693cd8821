// How a resource's switch is connected to the outside of the node.
#pragma once

#include <string>

namespace vdpa {

// Neither a netdev nor a PCI function: not at all. Never both.
struct UplinkConfig {
  std::string netdev = {};  // name
  bool xdp = false;         // of a netdev: by AF_XDP, not by a packet socket
  std::string pci = {};     // address of the function, which DPDK drives itself

  bool empty() const { return netdev.empty() && pci.empty(); }
  bool operator==(const UplinkConfig&) const = default;
};

// For people: "eth1", "eth1 (AF_XDP)", "0000:03:00.0", "none".
std::string describe(const UplinkConfig& uplink);

}  // namespace vdpa
