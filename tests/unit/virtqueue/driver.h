// The driver's side of virtqueues, for tests, the fuzzer and the benchmark: memory of a guest, and
// a split or a packed ring in it (virtio 1.2, 2.7 and 2.8). It trusts its device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue::test {

// Memory of a guest, in one region.
class Guest {
 public:
  static constexpr uint64_t kStart = 0x100000;

  explicit Guest(size_t bytes = 4 << 20)
      : Guest(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)), bytes, &std::free) {}
  // In memory that is somebody else's, unless `release` says how it is given back.
  Guest(
      std::byte* memory, size_t bytes, void (*release)(void*) = [](void*) {})
      : size_(bytes),
        memory_(memory, release),
        map_(AddressMap::ofRegions({{kStart, bytes, memory, kStart, Access::kReadWrite}})) {
    std::memset(memory, 0, bytes);
  }

  std::byte* at(uint64_t address) { return memory_.get() + (address - kStart); }
  size_t size() const { return size_; }
  const AddressMap& map() const { return map_; }

  // Never freed.
  uint64_t allocate(size_t bytes, size_t alignment = 64) {
    next_ = (next_ + alignment - 1) / alignment * alignment;
    const uint64_t address = kStart + next_;
    next_ += bytes;
    if (next_ > size_) throw std::logic_error("the guest's memory is used up");
    return address;
  }
  template <typename T>
  void put(uint64_t address, const T& value) {
    std::memcpy(at(address), &value, sizeof value);
  }
  template <typename T>
  T get(uint64_t address) {
    T value;
    std::memcpy(&value, at(address), sizeof value);
    return value;
  }
  void fill(uint64_t address, size_t bytes, uint8_t seed) {
    for (size_t i = 0; i < bytes; ++i) *at(address + i) = static_cast<std::byte>(seed + i * 7);
  }
  std::vector<std::byte> bytes(uint64_t address, size_t count) {
    return {at(address), at(address) + count};
  }

 private:
  size_t size_;
  size_t next_ = 0;
  std::unique_ptr<std::byte, void (*)(void*)> memory_;
  AddressMap map_;
};

// An element of a buffer.
struct Element {
  uint64_t address;
  uint32_t length;
  bool writable = false;
};

struct Used {
  uint16_t id;
  uint32_t written;
};

// The common part of both formats.
class DriverRing {
 public:
  DriverRing(Guest& guest, Format format, uint32_t size, bool eventIndex)
      : guest_(guest), size_(size), eventIndex_(eventIndex) {
    const bool split = format == Format::kSplit;
    addresses_.descriptors = guest.allocate(16 * size, 16);
    addresses_.driver = guest.allocate(split ? 6 + 2 * size : 4, split ? 2 : 4);
    addresses_.device = guest.allocate(split ? 6 + 8 * size : 4, 4);
  }

  const RingAddresses& addresses() const { return addresses_; }
  uint32_t size() const { return size_; }

  std::byte* descriptorAt(uint32_t index) {
    return guest_.at(addresses_.descriptors + kDescriptorSize * index);
  }
  std::byte* driver(size_t offset) { return guest_.at(addresses_.driver + offset); }
  std::byte* device(size_t offset) { return guest_.at(addresses_.device + offset); }

 protected:
  RingSetup setupAt(Format format, Direction direction, const Positions& start) const {
    RingSetup setup;
    setup.size = size_;
    setup.eventIndex = eventIndex_;
    setup.indirect = true;
    setup.direction = direction;
    setup.shortest = direction == Direction::kReceive ? 12 : 0;
    setup.areas = findAreas(guest_.map(), format, size_, eventIndex_, addresses_);
    setup.start = start;
    return setup;
  }
  static uint16_t flagsOf(const Element& element) { return element.writable ? flag::kWrite : 0; }

  Guest& guest_;
  const uint32_t size_;
  const bool eventIndex_;
  RingAddresses addresses_;
};

class SplitDriver : public DriverRing {
 public:
  using Device = SplitRing;
  static constexpr Format kFormat = Format::kSplit;

  SplitDriver(Guest& guest, uint32_t size, bool eventIndex = false, uint16_t start = 0)
      : DriverRing(guest, kFormat, size, eventIndex),
        chains_(size),
        free_(size),
        available_(start),
        seen_(start) {
    std::iota(free_.begin(), free_.end(), 0);
    storeRelease(driver(split::kIndex), available_);
    store(device(split::kIndex), seen_);
  }

  // Of a device that starts with the first buffer that is not used yet.
  RingSetup setup(Direction direction) const {
    return setupAt(kFormat, direction, {{seen_, false}, {seen_, false}});
  }
  Device connect(Direction direction) const { return Device(setup(direction), guest_.map()); }

  void put(uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    store(descriptorAt(index), address);
    store(descriptorAt(index) + 8, length | uint64_t{flags} << 32 | uint64_t{next} << 48);
  }
  // Makes the chain from this descriptor on available, in memory but for the index.
  void stage(uint16_t head) {
    store(driver(split::kRing + 2 * (available_ % size_)), head);
    ++available_;
  }
  void expose() { storeRelease(driver(split::kIndex), available_); }

  size_t room() const { return free_.size(); }

  // 2.7.13; false if there is no room. The last descriptor has `more` flags.
  bool add(std::span<const Element> elements, uint16_t more = 0) {
    if (free_.size() < elements.size()) return false;
    std::vector<uint16_t> slots(free_.begin(), free_.begin() + static_cast<long>(elements.size()));
    free_.erase(free_.begin(), free_.begin() + static_cast<long>(elements.size()));
    for (size_t i = 0; i < slots.size(); ++i) {
      const bool last = i + 1 == slots.size();
      const auto flags = static_cast<uint16_t>(flagsOf(elements[i]) | (last ? more : flag::kNext));
      put(slots[i], elements[i].address, elements[i].length, flags, last ? 0 : slots[i + 1]);
    }
    lastId_ = slots[0];
    chains_[slots[0]] = slots;
    stage(slots[0]);
    expose();
    return true;
  }
  bool add(const Element& element) { return add(std::span(&element, 1)); }

  // As a table, after descriptors of the ring; chained back to front, so that `next` counts.
  bool addIndirect(std::span<const Element> elements, std::span<const Element> before = {}) {
    const auto count = static_cast<uint16_t>(elements.size());
    const uint64_t table = guest_.allocate(16u * count, 8);
    for (uint16_t i = 0; i < count; ++i) {
      // The first is at 0, the others from the end on.
      const auto place = [&](uint16_t n) { return static_cast<uint16_t>(n == 0 ? 0 : count - n); };
      const bool last = i + 1 == count;
      guest_.put(table + 16u * place(i),
                 Descriptor{elements[i].address, elements[i].length,
                            static_cast<uint16_t>(flagsOf(elements[i]) | (last ? 0 : flag::kNext)),
                            last ? uint16_t{0} : place(static_cast<uint16_t>(i + 1))});
    }
    std::vector<Element> chain(before.begin(), before.end());
    chain.push_back({table, 16u * count});
    return add(chain, flag::kIndirect);
  }

  std::optional<Used> take() {
    if (loadAcquire<uint16_t>(device(split::kIndex)) == seen_) return std::nullopt;
    const std::byte* element = device(split::kRing + split::kUsedElement * (seen_++ % size_));
    const Used used{static_cast<uint16_t>(load<uint32_t>(element)), load<uint32_t>(element + 4)};
    free_.insert(free_.end(), chains_.at(used.id).begin(), chains_.at(used.id).end());
    chains_[used.id].clear();
    return used;
  }

  uint16_t lastId() const { return lastId_; }
  uint16_t available() const { return available_; }

  // The device's notifications (2.7.7): none, any, or once `count` more buffers are used.
  void noCalls() { store(driver(0), split::kNoInterrupt); }
  void allCalls() { store(driver(0), uint16_t{0}); }
  void callAfter(uint16_t count) {
    store(driver(split::kRing + 2 * size_), static_cast<uint16_t>(seen_ + count - 1));
  }
  // Whether the device wants to hear of the buffers after `before` (2.7.10).
  bool wantsKick(uint16_t before) {
    if (!eventIndex_) return !(load<uint16_t>(device(0)) & split::kNoNotify);
    const auto event = load<uint16_t>(device(split::kRing + 8 * size_));
    return static_cast<uint16_t>(available_ - event - 1) <
           static_cast<uint16_t>(available_ - before);
  }
  uint16_t mark() const { return available_; }

 private:
  std::vector<std::vector<uint16_t>> chains_;  // by ID
  std::vector<uint16_t> free_;
  uint16_t available_;
  uint16_t seen_;
  uint16_t lastId_ = 0;
};

class PackedDriver : public DriverRing {
 public:
  using Device = PackedRing;
  static constexpr Format kFormat = Format::kPacked;

  PackedDriver(Guest& guest, uint32_t size, bool eventIndex = false, uint16_t start = 0)
      : DriverRing(guest, kFormat, size, eventIndex),
        room_(size),
        counts_(size),
        ids_(size),
        next_{static_cast<uint16_t>(start % size), true},
        seen_(next_) {
    std::iota(ids_.begin(), ids_.end(), 0);
    // Entries before the start were used in this lap.
    for (uint32_t i = 0; i < next_.index; ++i) write(i, 0, 0, 0, flag::kAvailable | flag::kUsed);
  }

  // Of a device that starts with the first buffer that is not used yet.
  RingSetup setup(Direction direction) const { return setupAt(kFormat, direction, {seen_, seen_}); }
  Device connect(Direction direction) const { return Device(setup(direction), guest_.map()); }

  void write(uint32_t index, uint64_t address, uint32_t length, uint16_t id, uint16_t flags) {
    store(descriptorAt(index), address);
    storeRelease(descriptorAt(index) + 8, length | uint64_t{id} << 32 | uint64_t{flags} << 48);
  }
  uint16_t availableFlags(Position position) const {
    return position.wrap ? flag::kAvailable : flag::kUsed;
  }
  // One descriptor, available at the next place.
  void put(uint64_t address, uint32_t length, uint16_t flags, uint16_t id) {
    write(next_.index, address, length, id, flags | availableFlags(next_));
    next_ = after(next_);
  }

  size_t room() const { return room_; }

  // 2.8.21; false if there is no room.
  bool add(std::span<const Element> elements, uint16_t more = 0) {
    if (room_ < elements.size()) return false;
    const uint16_t id = ids_.back();
    ids_.pop_back();
    std::vector<Position> places;
    for (size_t i = 0; i < elements.size(); ++i, next_ = after(next_)) places.push_back(next_);
    for (size_t i = elements.size(); i-- > 0;) {  // the first comes last
      const bool last = i + 1 == elements.size();
      write(places[i].index, elements[i].address, elements[i].length,
            last ? id : static_cast<uint16_t>(0xdead),
            static_cast<uint16_t>(flagsOf(elements[i]) | more | (last ? 0 : flag::kNext) |
                                  availableFlags(places[i])));
    }
    room_ -= elements.size();
    counts_[id] = static_cast<uint16_t>(elements.size());
    lastId_ = id;
    return true;
  }
  bool add(const Element& element) { return add(std::span(&element, 1)); }

  bool addIndirect(std::span<const Element> elements) {
    const auto count = static_cast<uint32_t>(elements.size());
    const uint64_t table = guest_.allocate(16 * count, 8);
    for (uint32_t i = 0; i < count; ++i)  // reserved fields are not looked at (2.8.7)
      guest_.put(table + 16 * i,
                 PackedDescriptor{elements[i].address, elements[i].length, 0xbeef,
                                  static_cast<uint16_t>(flagsOf(elements[i]) | flag::kNext)});
    const Element whole{table, 16 * count, true};  // nor whether the table is writable
    return add(std::span(&whole, 1), flag::kIndirect);
  }

  std::optional<Used> take() {
    const auto half = loadAcquire<uint64_t>(descriptorAt(seen_.index) + 8);
    const auto flags = static_cast<uint16_t>(half >> 48);
    const bool available = flags & flag::kAvailable, used = flags & flag::kUsed;
    if (available != seen_.wrap || used != seen_.wrap) return std::nullopt;
    const Used result{static_cast<uint16_t>(half >> 32), static_cast<uint32_t>(half)};
    lastFlags_ = flags;
    const uint16_t count = counts_.at(result.id);
    if (count == 0) throw std::logic_error("a buffer is used twice");
    counts_[result.id] = 0;
    for (uint16_t i = 0; i < count; ++i) seen_ = after(seen_);
    room_ += count;
    ids_.insert(ids_.begin(), result.id);
    return result;
  }

  uint16_t lastFlags() const { return lastFlags_; }  // of the used descriptor
  uint16_t lastId() const { return lastId_; }
  Position next() const { return next_; }

  void noCalls() { store(driver(0), packed::kDisable << packed::kFlagsShift); }
  void allCalls() { store(driver(0), packed::kEnable << packed::kFlagsShift); }
  // Once the descriptor `count - 1` entries after the next used one is used.
  void callAfter(uint16_t count) {
    Position place = seen_;
    for (uint16_t i = 1; i < count; ++i) place = after(place);
    store(driver(0), place.index | (place.wrap ? packed::kWrap : 0) |
                         packed::kDescriptor << packed::kFlagsShift);
  }
  bool wantsKick(Position before) {
    const auto events = load<uint32_t>(device(0));
    const uint32_t flags = events >> packed::kFlagsShift;
    if (flags != packed::kDescriptor) return flags == packed::kEnable;
    const Position event{static_cast<uint16_t>(events & packed::kOffsetMask),
                         (events & packed::kWrap) != 0};
    for (Position at = before; at != next_; at = after(at))
      if (at == event) return true;
    return false;
  }
  Position mark() const { return next_; }

 private:
  Position after(Position position) const {
    if (position.index + 1u < size_)
      return {static_cast<uint16_t>(position.index + 1), position.wrap};
    return {0, !position.wrap};
  }

  size_t room_;
  std::vector<uint16_t> counts_;  // by ID: descriptors, 0 if it is free
  std::vector<uint16_t> ids_;
  Position next_, seen_;
  uint16_t lastId_ = 0, lastFlags_ = 0;
};

}  // namespace vdpa::virtqueue::test
