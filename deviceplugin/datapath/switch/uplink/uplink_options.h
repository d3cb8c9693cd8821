// Which uplink a switch opens, and how. Needs no DPDK.
#pragma once

#include <string>

namespace vdpa::vswitch {

struct UplinkOptions {
  std::string netdev;     // a netdev's name; empty: a PCI function
  bool xdp = false;       // of a netdev: by AF_XDP, not by a packet socket
  std::string pci;        // its address
  unsigned queues = 1;    // of pollers
  unsigned mtu = 1500;    // bytes of layer-3 payload
  std::string directory;  // writable, for EAL
};

}  // namespace vdpa::vswitch
