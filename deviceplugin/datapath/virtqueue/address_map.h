// Maps a driver's addresses to our memory: sorted ranges, from a table of regions or from an IOTLB.
// A ring uses both in the same way.
//
// Not synchronised: the caller must not change a map while a ring reads it, and replaces it by a
// copy or holds the ring's lock. The memory is borrowed; it must stay mapped while a ring, or a
// list of its buffers, can reach it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vdpa::virtqueue {

// The device's rights; bits, as VHOST_ACCESS_RO, WO and RW of an IOTLB message.
enum class Access : uint8_t { kNone = 0, kRead = 1, kWrite = 2, kReadWrite = 3 };

inline bool allows(Access has, Access wanted) {
  return (static_cast<uint8_t>(has) & static_cast<uint8_t>(wanted)) == static_cast<uint8_t>(wanted);
}

struct Range {
  uint64_t start = 0;         // by the driver's addresses
  uint64_t size = 0;          // bytes
  std::byte* host = nullptr;  // where `start` is mapped
  uint64_t physical = 0;      // guest-physical address of `start`, by which pages are logged dirty
  Access access = Access::kReadWrite;

  // Bytes from `address` to the end; meaningless unless the range has the address.
  uint64_t from(uint64_t address) const { return size - (address - start); }
  bool has(uint64_t address) const { return address - start < size; }
  std::byte* at(uint64_t address) const { return host + (address - start); }
  uint64_t physicalAt(uint64_t address) const { return physical + (address - start); }
};

class AddressMap {
 public:
  // Of one driver, as vhost-user's back-ends take them (VHOST_USER_GET_MAX_MEM_SLOTS: 509 in QEMU).
  static constexpr size_t kMaxRegions = 512;
  AddressMap();

  // A table of regions, in any order. An address outside them is the driver's fault. Throws
  // VirtqueueError when there are too many, one is empty or wraps around, or two overlap.
  static AddressMap ofRegions(std::vector<Range> regions);
  // The map of an IOTLB, empty: an address that it lacks may come with a later message.
  static AddressMap ofIotlb();

  // Whether an address outside it is a miss and no fault.
  bool mayGrow() const { return mayGrow_; }
  size_t size() const { return ranges_.size() - 1; }
  const Range& operator[](size_t index) const { return ranges_[index]; }

  // The index of the range that has the address, or size(). `hint` is where the last one was found,
  // 0 at first.
  size_t find(uint64_t address, size_t& hint) const {
    if (hint < ranges_.size() && ranges_[hint].has(address)) [[likely]]
      return hint;
    return search(address, hint);
  }

  // The range that has all of [address, address + bytes) and grants the access; null: none.
  const Range* whole(uint64_t address, uint64_t bytes, Access access) const;

  // Adds a range that overlaps none. Merges it with a neighbour that it continues in every respect.
  void insert(const Range& range);
  // Removes [start, start + bytes), splitting ranges that reach beyond it.
  void erase(uint64_t start, uint64_t bytes);

 private:
  size_t search(uint64_t address, size_t& hint) const;

  std::vector<Range> ranges_;  // sorted by start; after them an empty one, which has no address
  bool mayGrow_ = false;
};

}  // namespace vdpa::virtqueue
