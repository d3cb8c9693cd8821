// How many ports a switch can serve within the limits of its process.
#pragma once

#include <cstdint>
#include <string>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace vdpa::vswitch {

struct Capacity {
  static constexpr unsigned kMaxPorts = 4096;
  static_assert(kMaxPorts < MacTable::kMaxPorts);

  unsigned ports = kMaxPorts;
  // The setting that limits `ports`, and the remedy; empty: none does.
  std::string limit;
};

// For ports of this many queue pairs. `descriptors` is RLIMIT_NOFILE, `mappings` vm.max_map_count.
Capacity capacityFor(unsigned queuePairs, uint64_t descriptors, uint64_t mappings);
// With the current limits. A limit that cannot be read counts as none.
Capacity readCapacity(unsigned queuePairs);

}  // namespace vdpa::vswitch
