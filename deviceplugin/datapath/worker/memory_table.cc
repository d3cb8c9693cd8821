// See the header.
#include "deviceplugin/datapath/worker/memory_table.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "deviceplugin/datapath/worker/protocol_error.h"

namespace vdpa {
namespace {

bool overflows(uint64_t start, uint64_t size) {
  return start + size < start;
}

bool overlap(uint64_t startA, uint64_t sizeA, uint64_t startB, uint64_t sizeB) {
  return startA < startB + sizeB && startB < startA + sizeA;
}

void checkSize(size_t number, const MemoryRegion& region) {
  struct stat status {};
  if (::fstat(region.file->get(), &status) < 0 || !S_ISREG(status.st_mode))
    throw protocolError("memory region {}: the descriptor is not a file", number);
  const uint64_t end = region.wire.fileOffset + region.wire.size;
  if (static_cast<uint64_t>(status.st_size) < end)
    throw protocolError("memory region {}: needs {} bytes of its file, which has {}", number, end,
                        status.st_size);
}

void checkFile(size_t number, const MemoryRegion& region) {
  const int fd = region.file->get();
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != O_RDWR)
    throw protocolError("memory region {}: the file is not open for reading and writing", number);
  checkSize(number, region);
  struct statfs system {};
  if (::fstatfs(fd, &system) < 0 ||
      (system.f_type != TMPFS_MAGIC && system.f_type != HUGETLBFS_MAGIC))
    throw protocolError(
        "memory region {}: the file is on a file system of type {:#x}; expected a memfd, tmpfs or "
        "hugetlbfs",
        number, static_cast<uint64_t>(system.f_type));
}

void checkRange(size_t number, const WireRegion& region) {
  if (region.size == 0) throw protocolError("memory region {}: its size is 0", number);
  if (overflows(region.userAddress, region.size) || overflows(region.guestAddress, region.size) ||
      overflows(region.fileOffset, region.size))
    throw protocolError(
        "memory region {}: {:#x} bytes at {:#x} (guest {:#x}, file offset {:#x}) are beyond 64 "
        "bits",
        number, region.size, region.userAddress, region.guestAddress, region.fileOffset);
}

}  // namespace

MemoryTable::MemoryTable(Message message) {
  const auto table = message.as<WireMemoryTable>();
  for (size_t i = 0; i < table.regionCount; ++i) {
    const WireRegion& wire = table.regions[i];
    checkRange(i, wire);
    for (size_t k = 0; k < i; ++k) {
      const WireRegion& other = table.regions[k];
      if (overlap(wire.userAddress, wire.size, other.userAddress, other.size) ||
          overlap(wire.guestAddress, wire.size, other.guestAddress, other.size))
        throw protocolError("memory regions {} and {} overlap", k, i);
    }
    regions_.push_back({wire, std::make_shared<const UniqueFd>(std::move(message.descriptors[i]))});
    checkFile(i, regions_.back());
  }
}

const MemoryRegion* MemoryTable::find(uint64_t address, uint64_t size) const {
  for (const MemoryRegion& region : regions_) {
    if (address < region.wire.userAddress) continue;
    const uint64_t offset = address - region.wire.userAddress;
    if (offset < region.wire.size && size <= region.wire.size - offset) return &region;
  }
  return nullptr;
}

const MemoryRegion& MemoryTable::at(uint64_t address, uint64_t size) const {
  const MemoryRegion* region = find(address, size);
  if (!region)
    throw protocolError("{} bytes at {:#x} are not within one memory region", size, address);
  return *region;
}

void MemoryTable::read(uint64_t address, std::span<std::byte> into) const {
  const MemoryRegion& region = at(address, into.size());
  uint64_t offset = region.wire.fileOffset + (address - region.wire.userAddress);
  while (!into.empty()) {
    const ssize_t count =
        ::pread(region.file->get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      throw protocolError(
          "the memory at {:#x} cannot be read: {}", address,
          count == 0 ? "its file was truncated" : std::generic_category().message(errno));
    into = into.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

void MemoryTable::write(uint64_t address, std::span<const std::byte> from) const {
  const MemoryRegion& region = at(address, from.size());
  checkFiles();  // a write beyond the end would silently make the file longer
  const uint64_t offset = region.wire.fileOffset + (address - region.wire.userAddress);
  const ssize_t count =
      ::pwrite(region.file->get(), from.data(), from.size(), static_cast<off_t>(offset));
  if (count != static_cast<ssize_t>(from.size()))
    throw protocolError("the memory at {:#x} cannot be written: {}", address,
                        count < 0 ? std::generic_category().message(errno) : "too short");
}

bool MemoryTable::sameAddresses(const MemoryTable& other) const {
  return std::equal(regions_.begin(), regions_.end(), other.regions_.begin(), other.regions_.end(),
                    [](const MemoryRegion& a, const MemoryRegion& b) {
                      return std::memcmp(&a.wire, &b.wire, sizeof a.wire) == 0;
                    });
}

bool MemoryTable::sameAs(const MemoryTable& other) const {
  if (!sameAddresses(other)) return false;
  for (size_t i = 0; i < regions_.size(); ++i) {
    struct stat mine {
    }, theirs{};
    if (::fstat(regions_[i].file->get(), &mine) < 0 ||
        ::fstat(other.regions_[i].file->get(), &theirs) < 0 || mine.st_dev != theirs.st_dev ||
        mine.st_ino != theirs.st_ino)
      return false;
  }
  return true;
}

void MemoryTable::checkFiles() const {
  for (size_t i = 0; i < regions_.size(); ++i) checkSize(i, regions_[i]);
}

}  // namespace vdpa
