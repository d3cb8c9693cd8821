// Finds the netdevs that the host itself needs: those never become pods' devices.
//
// Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr}.h.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace vdpa::plugin {

// The relevant parts of the kernel's three dumps.
struct NetworkConfiguration {
  struct Link {
    unsigned index = 0;
    std::string name;
    unsigned master = 0;  // index of the bond, bridge or team it is in; 0: none
    unsigned lower = 0;   // index of the netdev below a VLAN or macvlan; 0: none
    std::string kind;     // "vlan", "bridge", ...; empty: hardware
  };
  struct Address {
    unsigned index = 0;
    std::string text;  // "192.0.2.1/24"
    bool linkLocal = false;
  };
  std::vector<Link> links;
  std::vector<Address> addresses;
  std::vector<unsigned> defaultRoutes;  // indices of their netdevs
};

// In the calling thread's network namespace; complete even while links come and go. Throws
// std::system_error.
NetworkConfiguration dumpNetwork();

// Maps every netdev that the host needs to the reason: a default route or an address on it, or on
// any netdev stacked above it. Link-local IPv6 addresses, which every netdev has, don't count.
std::map<std::string, std::string> findHostUse(const NetworkConfiguration& network);

}  // namespace vdpa::plugin
