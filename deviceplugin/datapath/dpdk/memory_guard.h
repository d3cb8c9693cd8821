// A pod can truncate the memory it shares; touching the missing part raises SIGBUS. The guard maps
// empty memory in its place, so that the process survives and only that pod's port is lost.
#pragma once

#include <cstdint>
#include <vector>

namespace vdpa::dpdk {

// Installs the handler for the process; one at a time, since a signal handler has no context but
// static data.
class MemoryGuard {
 public:
  MemoryGuard();
  ~MemoryGuard();
  MemoryGuard(const MemoryGuard&) = delete;
  MemoryGuard& operator=(const MemoryGuard&) = delete;

  // Memory at [address, address + size) belongs to rte_vhost's device `vid`.
  void add(int vid, uint64_t address, uint64_t size);
  void remove(int vid);

  // Readable after a fault.
  int fd() const;
  // The devices whose memory failed since the last call; clears fd().
  std::vector<int> takeFailed();
};

}  // namespace vdpa::dpdk
