// The memory a pod shares: regions of files, by the pod's own addresses. The pod can truncate such
// a file at any time, so nothing here reads or writes it through a mapping: a vanished page causes
// a short read, not SIGBUS.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "deviceplugin/datapath/vhost_user/message.h"

namespace vdpa::vhost_user {

struct MemoryRegion {
  WireRegion wire;
  SharedFd file;
  // Which file it is (fstat(2)).
  dev_t device = 0;
  ino_t inode = 0;
};

class MemoryTable {
 public:
  // Checks a SET_MEM_TABLE message: count, sizes, overlaps, and that each descriptor is a file in
  // memory (memfd, tmpfs or hugetlbfs), open for reading and writing, that holds the region; and
  // that their total size is possible on this node, and that huge pages are allocated (see
  // huge_pages.h). Other kinds of files are refused because a pod could make an access to them wait
  // forever. Throws ProtocolError, and
  // leaves the descriptors in the message unless only huge pages are missing.
  explicit MemoryTable(Message&& message);

  const std::vector<MemoryRegion>& regions() const { return regions_; }

  // Whether [address, address + size) lies within one region. Addresses are the pod's.
  bool contains(uint64_t address, uint64_t size) const { return find(address, size) != nullptr; }
  // The region that the range lies within. Throws ProtocolError when there is none.
  const MemoryRegion& at(uint64_t address, uint64_t size) const;
  // The same table without its files, which need not stay open for one who has mapped them. For
  // contains(), has() and comparisons only, and while the mappings exist: another file could get
  // the number of one that is gone.
  MemoryTable withoutFiles() const;

  // Whether it has the same part of the same file at the same guest address.
  bool has(const MemoryRegion& region) const;

  // The same files at the same addresses.
  bool sameAs(const MemoryTable& other) const;
  // The same addresses, whatever the files.
  bool sameAddresses(const MemoryTable& other) const;

  // Copies from or to the pod's memory. Throws ProtocolError when the range is not in the table or
  // the file has become shorter.
  void read(uint64_t address, std::span<std::byte> into) const;
  void write(uint64_t address, std::span<const std::byte> from) const;

  // Bytes of its files that are not allocated yet; the kernel charges each page to the process that
  // touches it first. Excludes huge pages: unallocated ones are refused.
  uint64_t unallocated() const;

  // Throws ProtocolError when a file no longer holds its region.
  void checkFiles() const;

 private:
  MemoryTable() = default;
  const MemoryRegion* find(uint64_t address, uint64_t size) const;

  std::vector<MemoryRegion> regions_;
};

}  // namespace vdpa::vhost_user
