// Turns descriptors, already copied to our memory, into buffers of a list: checks and translates
// them. The part of reading that both ring formats share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {

enum class Direction : uint8_t {
  kTransmit,  // the device reads the buffers: what the driver sends
  kReceive,   // the device writes them
};

// An address that an IOTLB lacks.
struct Miss {
  uint64_t address;
  Access access;
};

class BufferReader {
 public:
  struct Rules {
    Direction direction;
    bool indirect;         // VIRTIO_F_INDIRECT_DESC was negotiated
    uint16_t chainBudget;  // descriptors of one buffer, and pieces that they are mapped in; > 0
    uint16_t shortest;     // bytes: a buffer to receive that is shorter is a fault
  };

  // `map` is borrowed.
  BufferReader(const Rules& rules, const AddressMap& map);

  void setMap(const AddressMap& map) {
    map_ = &map;
    hint_ = 0;
  }
  const AddressMap& map() const { return *map_; }
  bool indirect() const { return rules_.indirect; }

  const Fault& fault() const { return fault_; }
  // The address for which reading stopped, although a buffer is available. Read again from there
  // once the map has it.
  const std::optional<Miss>& miss() const { return miss_; }
  void forgetMiss() { miss_.reset(); }

  // The usual case: one descriptor, of one piece. False: it is something else; gather it. The list
  // must have room.
  bool simple(BufferList& list, uint64_t address, uint32_t length, uint16_t flags, uint16_t id) {
    constexpr uint16_t kinds = flag::kNext | flag::kIndirect | flag::kWrite;
    if ((flags & kinds) != wanted_ || length < rules_.shortest) [[unlikely]]
      return false;
    const Range& range = (*map_)[map_->find(address, hint_)];
    // The range after the last has no bytes.
    if (range.from(address) < length || !range.has(address) || !allows(range.access, access_))
        [[unlikely]]
      return false;
    std::byte* data = range.at(address);
    prefetch(data);
    list.push({.data = data, .physical = range.physicalAt(address), .length = length, .id = id});
    return true;
  }

  // All others, descriptor by descriptor: begin(), add() for each, end(). If one returns false, the
  // buffer is not in the list: fault() or miss() has the reason, or the list has no room.
  bool begin(BufferList& list, uint16_t entry);
  bool add(uint64_t address, uint32_t length, uint16_t flags);
  bool end(uint16_t id, uint16_t entries);
  // The descriptor at this address of an indirect table, copied.
  bool readTable(uint64_t address, std::byte (&descriptor)[kDescriptorSize]);
  // How many descriptors an indirect table of so many bytes has; 0: see fault().
  uint32_t tableEntries(uint32_t bytes);
  // The driver is at fault, at this entry of the ring. Returns false.
  bool fail(FaultKind kind, uint16_t entry, uint64_t value, uint64_t limit);
  // The same, at the entry of begin().
  bool fail(FaultKind kind, uint64_t value, uint64_t limit) {
    return fail(kind, entry_, value, limit);
  }

 private:
  void prefetch(const std::byte* data) const {
    if (rules_.direction == Direction::kReceive) {
      __builtin_prefetch(data, 1);
      __builtin_prefetch(data + 64, 1);
    } else {
      __builtin_prefetch(data + kHeaderAhead, 0);
    }
  }
  // The range of an address; null: none that grants the access, and the buffer is given up.
  const Range* find(uint64_t address, uint64_t length, Access access);
  bool giveUp();
  bool step();

  static constexpr size_t kHeaderAhead = 12;  // bytes of a network header, which is rarely read

  const Rules rules_;
  const uint16_t wanted_;  // flags of the usual descriptor
  const Access access_;
  const AddressMap* map_;
  size_t hint_ = 0;
  Fault fault_;
  std::optional<Miss> miss_;

  // The buffer that is being gathered.
  BufferList* list_ = nullptr;
  uint16_t entry_ = 0;
  uint16_t firstSegment_ = 0;
  uint16_t pieces_ = 0;
  uint32_t steps_ = 0;
  uint64_t length_ = 0;
};

}  // namespace vdpa::virtqueue
