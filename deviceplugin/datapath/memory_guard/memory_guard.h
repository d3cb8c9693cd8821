// A pod can truncate the memory it shares, and memory can fail; touching the missing part raises
// SIGBUS. The guard maps empty memory in its place, so that the process survives and only that
// pod's port is lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/mutex.h"

namespace vdpa {

// Installs the handler for the process; one at a time, since a signal handler has no context but
// static data.
class MemoryGuard {
 public:
  // Of memory that was not added: whether a page of it may be replaced too, or the fault ends the
  // process as usual. rte_vhost reads a ring's first bytes before it reports the memory.
  enum class Unknown { kReplacePage, kCrash };
  static constexpr int kNobody = -1;  // the owner of memory that was not added
  // Called once for each region, and for each page of unknown memory, that failed: on the thread
  // that touched it, within the signal handler.
  using Report = void (*)(void* context, int owner);

  // `context` must outlive the guard.
  MemoryGuard(Unknown unknown, Report report, void* context);
  ~MemoryGuard();
  MemoryGuard(const MemoryGuard&) = delete;
  MemoryGuard& operator=(const MemoryGuard&) = delete;

  // A table of 8 regions for each of 4,096 ports, and as many again, for tables that replace others
  // and for those whose last users have not left yet.
  static constexpr size_t kMaxRegions = 2 * 4096 * 8;

  // --- from any thread
  // Memory at [address, address + size), the whole of a mapping, of pages of `page` bytes, is
  // `owner`'s. The first pages of it that fail are replaced one by one, then the rest at once.
  // Returns what remove() needs. Throws std::runtime_error when there are too many.
  size_t add(int owner, uint64_t address, uint64_t size, uint64_t page = 4096);
  // Call before it is unmapped.
  void remove(size_t region);
  // Whether the node's memory has failed since the last call: no pod's deed.
  bool takeHardwareError();

 private:
  Mutex mutex_;
  std::vector<size_t> free_ GUARDED_BY(mutex_);  // regions that were removed
};

}  // namespace vdpa
