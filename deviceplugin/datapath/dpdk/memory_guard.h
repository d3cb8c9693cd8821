// A pod can truncate the memory it shares; whoever touches what is gone gets SIGBUS. The guard puts
// empty memory in the place, so that this process lives and only that pod's port is lost.
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

  // Memory at [address, address + size) is of rte_vhost's device `vid`.
  void add(int vid, uint64_t address, uint64_t size);
  void remove(int vid);

  // Readable after a fault.
  int fd() const;
  // The devices whose memory failed since the last call; clears fd().
  std::vector<int> takeFailed();
};

}  // namespace vdpa::dpdk
