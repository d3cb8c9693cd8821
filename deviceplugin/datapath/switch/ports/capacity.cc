#include "deviceplugin/datapath/switch/ports/capacity.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vswitch {
namespace {

// The listening socket, the connection and its channel for the link's status; the calls of two
// rings and the kick of one for each pair.
constexpr uint64_t kDescriptorsPerPort = 3, kDescriptorsPerPair = 3;
constexpr uint64_t kMappingsPerPort = vhost_user::kMaxMemoryRegions;
// The program's own, and those of messages and tables that are just being exchanged.
constexpr uint64_t kOwnDescriptors = 128, kOwnMappings = 512;

uint64_t fitting(uint64_t limit, uint64_t own, uint64_t each) {
  return limit > own ? (limit - own) / each : 0;
}

void keepTo(Capacity& capacity, uint64_t ports, std::string limit) {
  if (ports >= capacity.ports) return;
  capacity.ports = static_cast<unsigned>(ports);
  capacity.limit = std::move(limit);
}

}  // namespace

Capacity capacityFor(unsigned queuePairs, uint64_t descriptors, uint64_t mappings) {
  Capacity capacity;
  const uint64_t each = kDescriptorsPerPort + kDescriptorsPerPair * queuePairs;
  keepTo(
      capacity, fitting(descriptors, kOwnDescriptors, each),
      fmt::format("RLIMIT_NOFILE is {}, and a port takes {} descriptors: raise the limit of open "
                  "files of vdpa-datapath's container",
                  descriptors, each));
  keepTo(capacity, fitting(mappings, kOwnMappings, kMappingsPerPort),
         fmt::format("/proc/sys/vm/max_map_count is {}, and a port takes up to {} mappings: raise "
                     "the node's sysctl vm.max_map_count",
                     mappings, kMappingsPerPort));
  return capacity;
}

Capacity readCapacity(unsigned queuePairs) {
  rlimit files{RLIM_INFINITY, RLIM_INFINITY};
  ::getrlimit(RLIMIT_NOFILE, &files);
  uint64_t mappings = UINT64_MAX;
  std::ifstream("/proc/sys/vm/max_map_count") >> mappings;
  if (mappings == 0) mappings = UINT64_MAX;  // a stream that failed
  return capacityFor(queuePairs, files.rlim_cur, mappings);
}

}  // namespace vdpa::vswitch
