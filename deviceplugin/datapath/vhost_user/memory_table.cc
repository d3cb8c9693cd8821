#include "deviceplugin/datapath/vhost_user/memory_table.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "common/node_memory.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/huge_pages.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

constexpr uint64_t kBlock = 512;  // bytes, the unit of st_blocks (stat(3type))

bool overflows(uint64_t start, uint64_t size) {
  return start + size < start;
}

bool overlap(uint64_t startA, uint64_t sizeA, uint64_t startB, uint64_t sizeB) {
  return startA < startB + sizeB && startB < startA + sizeA;
}

struct stat checkSize(size_t number, const WireRegion& region, int fd) {
  struct stat status {};
  if (::fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
    throw protocolError("memory region {}: the descriptor is not a file", number);
  const uint64_t end = region.fileOffset + region.size;
  if (static_cast<uint64_t>(status.st_size) < end)
    throw protocolError("memory region {}: needs {} bytes of its file, which has {}", number, end,
                        status.st_size);
  return status;
}

void checkFile(size_t number, MemoryRegion& region, int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != O_RDWR)
    throw protocolError("memory region {}: the file is not open for reading and writing", number);
  // Answered for memfd, tmpfs and hugetlbfs alone (memfd_file_seals_ptr() in Linux's mm/memfd.c),
  // and by no file system: one of the pod's own (FUSE) could make other calls wait.
  if (::fcntl(fd, F_GET_SEALS) < 0)
    throw protocolError(
        "memory region {}: the descriptor is not a file in memory; expected a memfd, tmpfs or "
        "hugetlbfs",
        number);
  const struct stat status = checkSize(number, region.wire, fd);
  region.device = status.st_dev;
  region.inode = status.st_ino;
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

// A file can be far larger than its content. An engine maps each from its start, and engines of
// many pods share a process: no pod may exhaust its address space. Twice the memory, since a
// virtual machine's regions may be two parts of one file.
uint64_t mostMapped() {
  return 2 * nodeMemory();
}

// A shared mapping of a part of a file; data() is null, and errno set, if there is none.
class Mapping {
 public:
  Mapping(int fd, uint64_t offset, size_t size) : size_(size) {
    void* data =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (data != MAP_FAILED) data_ = static_cast<std::byte*>(data);
  }
  ~Mapping() {
    if (data_) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_;
};

}  // namespace

MemoryTable::MemoryTable(Message&& message) {
  const auto table = message.as<WireMemoryTable>();
  const uint64_t most = mostMapped();
  uint64_t mapped = 0;
  for (size_t i = 0; i < table.regionCount; ++i) {
    const WireRegion& wire = table.regions[i];
    checkRange(i, wire);
    for (size_t k = 0; k < i; ++k) {
      const WireRegion& other = table.regions[k];
      if (overlap(wire.userAddress, wire.size, other.userAddress, other.size) ||
          overlap(wire.guestAddress, wire.size, other.guestAddress, other.size))
        throw protocolError("memory regions {} and {} overlap", k, i);
    }
    regions_.push_back({wire, nullptr});
    checkFile(i, regions_.back(), message.descriptors[i].get());
    mapped += wire.fileOffset + wire.size;  // less than 2^63 each: the size of a file
    if (mapped > most)
      throw protocolError(
          "memory region {}: with it, the regions and the parts before them in their files have {} "
          "MiB; "
          "at most {} MiB, twice this node's memory, can be shared",
          i, mapped >> 20, most >> 20);
  }
  for (size_t i = 0; i < regions_.size(); ++i)
    regions_[i].file = std::make_shared<const UniqueFd>(std::move(message.descriptors[i]));
  checkHugePages(regions_);
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

// hugetlbfs has no write(), and a store through a mapping would raise SIGBUS if the pod truncated
// the file in between. So the kernel stores through the mapping: read() into it, from a pipe, fails
// with EFAULT.
void MemoryTable::write(uint64_t address, std::span<const std::byte> from) const {
  const MemoryRegion& region = at(address, from.size());
  const uint64_t offset = region.wire.fileOffset + (address - region.wire.userAddress);
  const auto failed = [address](int error) {
    return protocolError(
        "the memory at {:#x} cannot be written: {}", address,
        error == EFAULT ? "its file was truncated" : std::generic_category().message(error));
  };
  struct statfs system {};  // f_bsize is the page size of a file in memory
  if (::fstatfs(region.file->get(), &system) < 0) throw failed(errno);
  const auto page = static_cast<uint64_t>(system.f_bsize);
  const uint64_t start = offset - offset % page;
  const uint64_t pages = (offset + from.size() - start + page - 1) / page;
  const Mapping mapping(region.file->get(), start, pages * page);
  if (!mapping.data()) throw failed(errno);

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) throw failed(errno);
  const UniqueFd output(ends[0]), input(ends[1]);
  const auto size = static_cast<ssize_t>(from.size());
  if (::write(input.get(), from.data(), from.size()) != size) throw failed(errno);
  if (::read(output.get(), mapping.data() + (offset - start), from.size()) != size)
    throw failed(errno);
}

bool MemoryTable::sameAddresses(const MemoryTable& other) const {
  return std::equal(regions_.begin(), regions_.end(), other.regions_.begin(), other.regions_.end(),
                    [](const MemoryRegion& a, const MemoryRegion& b) {
                      return std::memcmp(&a.wire, &b.wire, sizeof a.wire) == 0;
                    });
}

bool MemoryTable::sameAs(const MemoryTable& other) const {
  return sameAddresses(other) &&
         std::all_of(other.regions_.begin(), other.regions_.end(),
                     [this](const MemoryRegion& region) { return has(region); });
}

bool MemoryTable::has(const MemoryRegion& region) const {
  return std::any_of(regions_.begin(), regions_.end(), [&](const MemoryRegion& mine) {
    return mine.wire.guestAddress == region.wire.guestAddress &&
           mine.wire.size == region.wire.size && mine.wire.fileOffset == region.wire.fileOffset &&
           mine.device == region.device && mine.inode == region.inode;
  });
}

MemoryTable MemoryTable::withoutFiles() const {
  MemoryTable table;
  table.regions_ = regions_;
  for (MemoryRegion& region : table.regions_) region.file.reset();
  return table;
}

uint64_t MemoryTable::unallocated() const {
  uint64_t bytes = 0;
  std::set<std::pair<dev_t, ino_t>> seen;
  for (const MemoryRegion& region : regions_) {
    struct stat status {};
    struct statfs system {};
    const int fd = region.file->get();
    if (::fstat(fd, &status) < 0 || ::fstatfs(fd, &system) < 0 ||
        system.f_type == HUGETLBFS_MAGIC || !seen.insert({status.st_dev, status.st_ino}).second)
      continue;
    const auto size = static_cast<uint64_t>(status.st_size);
    bytes += size - std::min(size, static_cast<uint64_t>(status.st_blocks) * kBlock);
  }
  return bytes;
}

void MemoryTable::checkFiles() const {
  for (size_t i = 0; i < regions_.size(); ++i)
    checkSize(i, regions_[i].wire, regions_[i].file->get());
}

}  // namespace vdpa::vhost_user
