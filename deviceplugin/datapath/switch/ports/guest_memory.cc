#include "deviceplugin/datapath/switch/ports/guest_memory.h"

#include <sys/mman.h>
#include <sys/types.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/virtqueue/address_map.h"

namespace vdpa::vswitch {
namespace {

constexpr size_t kPiece = size_t{64} << 20;  // bytes; a multiple of the page size, or a part of it

}  // namespace

GuestMemory::GuestMemory(const vhost_user::MemoryTable& table, MacTable::Port port,
                         MemoryGuard& guard)
    : guard_(guard) {
  std::vector<virtqueue::Range> byGuest, byUser;
  try {
    for (size_t number = 0; number < table.regions().size(); ++number) {
      const vhost_user::MemoryRegion& region = table.regions()[number];
      virtqueue::Range range;
      range.size = region.wire.size;
      range.host = map(number, region, port);
      range.physical = region.wire.guestAddress;
      range.start = region.wire.guestAddress;
      byGuest.push_back(range);
      range.start = region.wire.userAddress;
      byUser.push_back(range);
    }
    byGuest_ = virtqueue::AddressMap::ofRegions(std::move(byGuest));
    byUser_ = virtqueue::AddressMap::ofRegions(std::move(byUser));
  } catch (...) {
    unmap();
    throw;
  }
}

// Whole pages, of the file's size, so that the guard can replace what is lost: a mapping of huge
// pages only as a whole. Those that the pod has not allocated are reserved here, or refused: they
// belong to other pods (vhost_user/huge_pages.h).
std::byte* GuestMemory::map(size_t number, const vhost_user::MemoryRegion& region,
                            MacTable::Port port) {
  struct statfs system {};  // f_bsize is the page size of a file in memory
  checked(::fstatfs(region.file->get(), &system), "cannot read the page size of memory region {}",
          number);
  const auto page = static_cast<uint64_t>(system.f_bsize);
  const uint64_t skipped = region.wire.fileOffset % page;
  const uint64_t size = (skipped + region.wire.size + page - 1) / page * page;
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, region.file->get(),
                       static_cast<off_t>(region.wire.fileOffset - skipped));
  if (start == MAP_FAILED)
    throw systemError(errno, "cannot map memory region {}, {} bytes", number, size);
  try {
    mappings_.push_back(
        {start, size, page, guard_.add(port, reinterpret_cast<uint64_t>(start), size, page)});
  } catch (...) {
    ::munmap(start, size);
    throw;
  }
  return static_cast<std::byte*>(start) + skipped;
}

// In pieces: another thread that maps something waits for the one that is being unmapped.
void GuestMemory::unmap() {
  for (const Mapping& mapping : mappings_) {
    guard_.remove(mapping.guarded);
    const size_t piece = std::max(kPiece, mapping.page);
    for (size_t at = 0; at < mapping.size; at += piece)
      ::munmap(static_cast<std::byte*>(mapping.start) + at, std::min(piece, mapping.size - at));
  }
  mappings_.clear();
}

}  // namespace vdpa::vswitch
