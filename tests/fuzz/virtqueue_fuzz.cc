// Fuzzes the device's side of virtqueues with the memory of a hostile driver: the input is what
// rings, tables and buffers hold, and what the device does with them; a second thread goes on
// writing while they are read. What must hold: no byte is touched that the driver does not share
// (each region is an allocation of its own, so the sanitizer sees it), what a list says of buffers
// is within the regions and adds up, and a ring stops at the first fault, with words for it.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/dirty_log.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/iotlb.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {
namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

class Input {
 public:
  explicit Input(std::span<const uint8_t> data) : data_(data) {}
  bool empty() const { return data_.empty(); }
  uint8_t byte() {
    if (empty()) return 0;
    const uint8_t value = data_[0];
    data_ = data_.subspan(1);
    return value;
  }
  uint16_t word() { return static_cast<uint16_t>(byte() << 8 | byte()); }
  std::span<const uint8_t> take(size_t size) {
    const auto taken = data_.first(std::min(size, data_.size()));
    data_ = data_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> data_;
};

// Small regions that adjoin for the driver: ring, tables and buffers fall into and across them.
constexpr size_t kRegions = 4;
constexpr size_t kRegionSize = 0x400;
constexpr uint64_t kStart = 0x1000;

class Memory {
 public:
  Memory() {
    std::vector<Range> ranges;
    for (size_t i = 0; i < kRegions; ++i) {
      regions_.emplace_back(new (std::align_val_t{16}) std::byte[kRegionSize]());
      const uint64_t start = kStart + i * kRegionSize;
      ranges.push_back({start, kRegionSize, regions_[i].get(), start, Access::kReadWrite});
    }
    map_ = AddressMap::ofRegions(ranges);
  }

  const AddressMap& map() const { return map_; }
  std::byte* at(uint64_t offset) {
    return regions_[offset / kRegionSize % kRegions].get() + offset % kRegionSize;
  }
  void write(uint64_t offset, uint8_t value) { store(at(offset), value); }
  // Regions may happen to lie side by side, and an IOTLB makes one range of them then.
  bool has(const std::byte* data, uint32_t length) const {
    for (const auto& region : regions_) {
      const auto* start = region.get();
      if (data < start || data >= start + kRegionSize) continue;
      const auto rest = static_cast<uint32_t>(start + kRegionSize - data);
      return length <= rest || has(start + kRegionSize, length - rest);
    }
    return false;
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{16}); }
  };
  std::vector<std::unique_ptr<std::byte[], Free>> regions_;
  AddressMap map_;
};

// Writes the same few bytes again and again, each time others: what is checked now is something
// else when it is used.
class Writer {
 public:
  Writer(Memory& memory, std::span<const uint8_t> script) {
    if (script.size() < 3) return;
    thread_ = std::thread([this, &memory, script] {
      for (uint8_t turn = 0; !stop_.load(std::memory_order_relaxed); ++turn)
        for (size_t i = 0; i + 2 < script.size(); i += 3)
          memory.write(static_cast<uint64_t>(script[i] << 8 | script[i + 1]),
                       turn % 2 ? script[i + 2] : static_cast<uint8_t>(script[i + 2] ^ turn));
    });
  }
  ~Writer() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void checkList(const Memory& memory, const BufferList& list, uint32_t shortest, uint16_t budget) {
  for (size_t i = 0; i < list.size(); ++i) {
    const Buffer& buffer = list[i];
    require(buffer.length >= shortest && buffer.pieces <= budget && buffer.entries > 0);
    if (buffer.pieces == 1) {
      require(memory.has(buffer.data, buffer.length));
      continue;
    }
    uint64_t sum = 0;
    for (const Segment& segment : list.segments(buffer)) {
      require(memory.has(segment.data, segment.length) && segment.length > 0);
      sum += segment.length;
    }
    require(sum == buffer.length);
  }
}

// A ring, and what a switch does with it.
template <typename R>
class Device {
 public:
  Device(Memory& memory, const RingSetup& setup, const AddressMap& map, bool mergeable)
      : memory_(memory),
        setup_(setup),
        format_{setup.shortest == kLegacyHeaderSize ? kLegacyHeaderSize : kHeaderSize, mergeable},
        ring_(setup, map),
        bits_(4),
        log_(bits_) {}

  // False: the ring is at its end.
  bool step(Input& input) {
    switch (const uint8_t action = input.byte(); action % 8) {
      case 0:
        ring_.setLog(input.byte() % 2 ? &log_ : nullptr);
        break;
      case 1:
        if (!ring_.requestNotifications()) ring_.suppressNotifications();
        break;
      case 2:
        finish(input.byte());
        break;
      default:
        work(input);
    }
    require(ring_.reader().miss() == std::nullopt || ring_.reader().map().mayGrow());
    if (!ring_.fault()) return true;
    require(describe(ring_.fault()).starts_with("entry "));
    list_.clear();
    require(ring_.read(list_, 1) == 0);
    return false;
  }

  const R& ring() const { return ring_; }
  void finishAll() {
    while (!open_.empty()) finish(0);
  }

 private:
  struct Burst {
    std::unique_ptr<BufferList> list;
    Lease lease;
  };

  // Takes a burst, which is given back now or later.
  void work(Input& input) {
    Burst burst{std::make_unique<BufferList>(), {}};
    const size_t most = 1 + input.byte() % 70;
    if (setup_.direction == Direction::kTransmit)
      transmit(burst, most);
    else
      receive(burst, most, input);
    open_.push_back(std::move(burst));
    if (open_.size() > 3 || input.byte() % 4) finish(open_.size() - 1);
  }

  void transmit(Burst& burst, size_t most) {
    const size_t count = fetch(ring_, *burst.list, most, burst.lease);
    require(count == burst.list->size() && count <= most);
    checkList(memory_, *burst.list, 0, setup_.chainBudget);
    for (size_t i = 0; i < count; ++i) {
      Frame frame;
      if (!readFrame(*burst.list, (*burst.list)[i], format_.headerSize, frame)) continue;
      readHeader(*burst.list, (*burst.list)[i], format_.headerSize);
      prefetchFrame(frame);
      require(frame.length == (*burst.list)[i].length - format_.headerSize);
      if (frame.length > sizeof copy_) continue;
      copyFrame(frame, copy_);
      require(std::memcmp(copy_, frame.head.data(), frame.headLength()) == 0);
    }
  }

  void receive(Burst& burst, size_t most, Input& input) {
    std::vector<uint32_t> lengths;
    for (size_t i = 0; i < most; ++i) lengths.push_back(1 + input.word() % sizeof packet_);
    std::vector<Place> places(most);
    const size_t handled = reserve(ring_, format_, lengths, places, *burst.list, burst.lease);
    checkList(memory_, *burst.list, format_.headerSize, setup_.chainBudget);
    size_t next = 0;
    for (size_t i = 0; i < handled; ++i) {
      if (places[i].room != Place::Room::kFound) continue;
      require(places[i].first == next && places[i].count > 0);
      next += places[i].count;
      require(next <= burst.list->size() && (places[i].count == 1 || format_.mergeable));
      prefetchPlace(*burst.list, places[i], lengths[i]);
      write(*burst.list, places[i], format_, {}, frameOf(packet_, lengths[i]));
      uint64_t written = 0;
      for (size_t k = 0; k < places[i].count; ++k) {
        const Buffer& buffer = (*burst.list)[places[i].first + k];
        require(buffer.written <= buffer.length && buffer.written > 0);
        written += buffer.written;
      }
      require(written == lengths[i] + format_.headerSize);
    }
    require(next == burst.lease.count);
  }

  void finish(size_t which) {
    if (open_.empty()) return;
    const auto at = open_.begin() + static_cast<long>(which % open_.size());
    giveBack(ring_, *at->list, at->lease);
    open_.erase(at);
  }

  Memory& memory_;
  const RingSetup setup_;
  const NetFormat format_;
  R ring_;
  std::vector<std::byte> bits_;
  DirtyLog log_;
  BufferList list_;
  std::vector<Burst> open_;
  std::byte copy_[4096] = {};
  std::byte packet_[3000] = {};
};

// Fills the memory at the start, by records of an offset and bytes.
void fillMemory(Memory& memory, Input& input) {
  for (uint8_t records = input.byte() % 64; records > 0; --records) {
    const uint64_t offset = input.word();
    uint64_t next = offset;
    for (const uint8_t value : input.take(input.byte() % 48)) memory.write(next++, value);
  }
}

// Descriptors that have a chance: of addresses inside, few flags, all available.
void fillDescriptors(const RingSetup& setup, Format format, Input& input) {
  for (uint32_t i = 0; i < setup.size && !input.empty(); ++i) {
    const uint8_t kind = input.byte();
    const uint64_t address = kStart + input.word() % (kRegions * kRegionSize);
    const uint32_t length = kind & 0x80 ? input.word() : input.byte();
    const uint16_t writable =
        (kind & 1) != (setup.direction == Direction::kReceive) ? flag::kWrite : uint16_t{0};
    auto flags = static_cast<uint16_t>((kind % 16 == 2 ? flag::kNext : 0) |
                                       (kind % 16 == 4 ? flag::kIndirect : 0) |
                                       (kind % 8 == 7 ? flag::kWrite ^ writable : writable));
    std::byte* at = setup.areas.descriptors + kDescriptorSize * i;
    store(at, address);
    uint64_t half = length;
    if (format == Format::kPacked) {
      flags = static_cast<uint16_t>(flags |
                                    (setup.start.available.wrap ? flag::kAvailable : flag::kUsed));
      half |= uint64_t{i} << 32 | uint64_t{flags} << 48;
    } else {
      half |= uint64_t{flags} << 32 | uint64_t{(i + 1) % setup.size} << 48;
      store(setup.areas.driver + split::kRing + 2 * i, static_cast<uint16_t>(i));
    }
    store(at + 8, half);
  }
  if (format == Format::kSplit)
    store(setup.areas.driver + split::kIndex,
          static_cast<uint16_t>(setup.start.available.index + input.byte() % (setup.size + 1)));
}

void changeIotlb(Iotlb& iotlb, Input& input) {
  const uint64_t address = kStart + input.word() % (kRegions * kRegionSize);
  const uint64_t bytes = 1 + input.word() % 0x800;
  const auto access = static_cast<Access>(input.byte() % 4);
  if (access == Access::kNone) return iotlb.invalidate(address, bytes);
  try {
    iotlb.update(address, bytes, kStart + input.word() % (kRegions * kRegionSize), access);
  } catch (const VirtqueueError&) {
  }
}

template <typename R>
bool resumes(RingSetup setup, const Positions& positions, const AddressMap& map) {
  setup.start = positionsOf(baseOf(positions, R::kFormat), R::kFormat, setup.size);
  try {
    const R successor(setup, map);
  } catch (const VirtqueueError&) {
    return false;
  }
  return R::kFormat == Format::kSplit || setup.start == positions;
}

template <typename R>
void run(Memory& memory, const RingSetup& setup, Input& input) {
  const uint8_t options = input.byte();
  Iotlb iotlb(memory.map());
  iotlb.update(kStart, kRegions * kRegionSize / (1 + options % 2), kStart, Access::kReadWrite);
  const bool useIotlb = options & 2;
  fillDescriptors(setup, R::kFormat, input);
  fillMemory(memory, input);
  const auto script = input.take(options & 4 ? 3 * (input.byte() % 8) : 0);
  const Writer writer(memory, script);

  Device<R> device(memory, setup, useIotlb ? iotlb.map() : memory.map(), options & 8);
  while (!input.empty()) {
    if (useIotlb && input.byte() % 8 == 0) changeIotlb(iotlb, input);
    if (input.byte() % 8 == 0) fillMemory(memory, input);
    if (!device.step(input)) break;
  }
  device.finishAll();
  // Where it stopped, another one can go on: nothing is thrown.
  require(resumes<R>(setup, device.ring().positions(), memory.map()));
}

// Where an area of so many bytes is: mostly as near to a region's end as can be, so that what is
// read or written beyond it is beyond the region.
uint64_t areaAt(Input& input, size_t bytes, size_t alignment) {
  const uint8_t place = input.byte();
  if (place % 8 == 0) return kStart + input.byte() * 16u;
  const uint64_t end = kStart + (1 + place / 8 % kRegions) * kRegionSize;
  return (end - bytes) / alignment * alignment;
}

void runInput(Input& input) {
  Memory memory;
  RingSetup setup;
  const uint8_t kind = input.byte();
  const Format format = kind & 1 ? Format::kPacked : Format::kSplit;
  setup.direction = kind & 2 ? Direction::kReceive : Direction::kTransmit;
  setup.eventIndex = kind & 4;
  setup.indirect = kind & 8;
  if (setup.direction == Direction::kReceive)
    setup.shortest = kind & 16 ? kLegacyHeaderSize : kHeaderSize;
  setup.chainBudget = static_cast<uint16_t>(1 + input.byte() % 40);
  setup.size = format == Format::kPacked ? input.byte() : 1u << input.byte() % 8;
  const bool split = format == Format::kSplit;
  const uint32_t event = setup.eventIndex ? 2 : 0;
  const RingAddresses addresses{
      areaAt(input, kDescriptorSize * setup.size, 16),
      areaAt(input, split ? 4 + 2 * setup.size + event : packed::kEventSize, split ? 2 : 4),
      areaAt(input, split ? 4 + 8 * setup.size + event : packed::kEventSize, 4)};
  try {
    setup.areas = findAreas(memory.map(), format, setup.size, setup.eventIndex, addresses);
    setup.start = positionsOf(input.word() | uint32_t{input.word()} << 16, format, setup.size);
    if (input.byte() % 8) setup.start.used = setup.start.available;
    if (format == Format::kPacked)
      run<PackedRing>(memory, setup, input);
    else
      run<SplitRing>(memory, setup, input);
  } catch (const VirtqueueError&) {  // a ring that cannot be
  }
}

}  // namespace
}  // namespace vdpa::virtqueue

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vdpa::virtqueue::Input input({data, size});
  vdpa::virtqueue::runInput(input);
  return 0;
}
