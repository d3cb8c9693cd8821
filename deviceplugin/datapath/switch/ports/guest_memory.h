// The memory that a pod shares, mapped for the pollers.
#pragma once

#include <cstddef>
#include <vector>

#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/virtqueue/address_map.h"

namespace vdpa::vswitch {

// Immutable. Unmapped at its end: retire it (forwarding/epoch.h) once a poller could have seen it.
class GuestMemory {
 public:
  // Maps the table's regions, whose files may be closed afterwards. If the pod takes memory away
  // again, the guard reports an offence of `port`. Throws std::system_error naming a region that
  // cannot be mapped, and virtqueue::VirtqueueError for a table that AddressMap refuses.
  GuestMemory(const vhost_user::MemoryTable& table, MacTable::Port port, MemoryGuard& guard);
  ~GuestMemory() { unmap(); }
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // By guest-physical addresses, which descriptors contain.
  const virtqueue::AddressMap& byGuest() const { return byGuest_; }
  // By addresses of the front-end's process, in which the places of rings are given.
  const virtqueue::AddressMap& byUser() const { return byUser_; }

 private:
  struct Mapping {
    void* start;
    size_t size;
    size_t page;     // of its file; both in bytes
    size_t guarded;  // the guard's number
  };
  std::byte* map(size_t number, const vhost_user::MemoryRegion& region, MacTable::Port port);
  void unmap();

  MemoryGuard& guard_;
  std::vector<Mapping> mappings_;
  virtqueue::AddressMap byGuest_, byUser_;
};

}  // namespace vdpa::vswitch
