// Addresses and routes of a pod's interface, as in CNI 1.1.0.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vdpa::datapath {

struct PodRoute {
  std::string destination;        // "10.0.0.0/8"
  std::string gateway;            // empty: on the link
  uint32_t mtu = 0;               // bytes; 0: the interface's
  uint32_t advmss = 0;            // bytes; 0: the kernel's choice
  uint32_t priority = 0;          // the metric; 0: the kernel's choice
  std::optional<uint32_t> table;  // by default main
  std::optional<uint8_t> scope;   // by default global with a gateway, link without

  bool operator==(const PodRoute&) const = default;
};

struct PodAddresses {
  std::vector<std::string> ips;  // "10.0.0.2/24"
  std::vector<PodRoute> routes;
};

}  // namespace vdpa::datapath
