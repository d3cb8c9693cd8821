// One entry of a resource's `devices`: the properties that a device must have to be offered.
#pragma once

#include <string>
#include <vector>

#include "common/number_list.h"

namespace YAML {
class Node;
}

namespace vdpa::plugin {

// "ens1f0#0-3,7": a physical function and some or all of its VFs.
struct PfSelector {
  std::string pf;                // netdev name, or PCI address
  std::vector<NumberRange> vfs;  // empty: all
  bool contains(unsigned vf) const;
  bool operator==(const PfSelector&) const = default;
};

// Every key that isn't empty must match; the entries of a key are alternatives.
struct Selector {
  std::vector<std::string> vendors;       // four hex digits, lower case
  std::vector<std::string> devices;       //
  std::vector<std::string> drivers;       // of the PCI function
  std::vector<std::string> pciAddresses;  // "0000:65:00.2"
  std::vector<PfSelector> pfNames;
  std::vector<PfSelector> rootDevices;  // by the PF's PCI address
  std::vector<int> numaNodes;
  unsigned minQueuePairs = 0;
  std::vector<std::string> managementDevices;  // "pci/0000:65:00.2", "vdpasim_net"
  bool operator==(const Selector&) const = default;
};

// Throws ConfigError; `file` is only named in errors.
Selector parseSelector(const YAML::Node& node, const std::string& file);

}  // namespace vdpa::plugin
