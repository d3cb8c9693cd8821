#include "deviceplugin/guest/driver_ring.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {

using namespace vdpa::virtqueue;

namespace {

constexpr size_t kLine = 64;  // so that a driver's and a device's areas share no cache line

// The second half of a descriptor: length, then flags and next (split), or ID and flags (packed).
uint64_t half(uint32_t length, uint16_t third, uint16_t fourth) {
  return length | uint64_t{third} << 32 | uint64_t{fourth} << 48;
}

size_t driverBytes(Format format, uint32_t size) {
  return format == Format::kSplit ? split::kRing + split::kAvailableElement * size + 2
                                  : packed::kEventSize;
}

size_t deviceBytes(Format format, uint32_t size) {
  return format == Format::kSplit ? split::kRing + split::kUsedElement * size + 2
                                  : packed::kEventSize;
}

}  // namespace

size_t DriverRing::memoryFor(const RingOptions& options) {
  const size_t tables = options.indirect ? kDescriptorSize * options.pieces * options.size : 0;
  return kDescriptorSize * options.size + driverBytes(options.format, options.size) +
         deviceBytes(options.format, options.size) + tables + 4 * kLine;
}

DriverRing::DriverRing(SharedMemory& memory, Direction direction, const RingOptions& options)
    : options_(options),
      direction_(direction),
      descriptors_(memory.allocate(kDescriptorSize * options.size, kLine)),
      driver_(memory.allocate(driverBytes(options.format, options.size), kLine)),
      device_(memory.allocate(deviceBytes(options.format, options.size), kLine)),
      calls_(options.calls) {
  if (!packed() && !std::has_single_bit(options.size))
    throw std::logic_error("the size of a split ring is a power of two");
  if (options.pieces == 0 || buffers() == 0)
    throw std::logic_error("a buffer has at least one piece, and at most as many as the ring");
  if (options.indirect)
    tables_ = memory.allocate(kDescriptorSize * options.pieces * options.size, kLine);
  addresses_ = {addressOf(descriptors_), addressOf(driver_), addressOf(device_)};
  used_.resize(options.size);
  written_.resize(buffers());
  askForCalls();
}

std::span<const DriverRing::Used> DriverRing::take() {
  const size_t count = packed() ? takePacked() : takeSplit();
  if (count > 0 && options_.eventIndex && !packed()) askForCalls();
  return std::span(used_).first(count);
}

size_t DriverRing::takeSplit() {
  const auto index = loadAcquire<uint16_t>(device_ + split::kIndex);
  const auto count = static_cast<uint16_t>(index - seen_);
  if (count > options_.size) throw std::runtime_error("the device used more buffers than it had");
  // In order, the elements of a transmit queue say nothing new (2.7.9).
  if (options_.inOrder && direction_ == Direction::kTransmit) {
    for (uint16_t i = 0; i < count; ++i) {
      used_[i] = {nextUsed_, 0};
      nextUsed_ = nextUsed_ + 1 == buffers() ? 0 : nextUsed_ + 1;
    }
  } else {
    for (uint16_t i = 0; i < count; ++i) {
      const uint32_t place = static_cast<uint16_t>(seen_ + i) & (options_.size - 1);
      const auto element =
          load<uint64_t>(device_ + split::kRing + split::kUsedElement * size_t{place});
      const auto first = static_cast<uint32_t>(element);
      if (first >= options_.size) throw std::runtime_error("the device used an unknown buffer");
      used_[i] = {options_.indirect || options_.pieces == 1 ? first : first / options_.pieces,
                  static_cast<uint32_t>(element >> 32)};
    }
  }
  seen_ = index;
  return count;
}

size_t DriverRing::takePacked() {
  size_t count = 0;
  while (count < used_.size()) {
    const auto element = loadAcquire<uint64_t>(descriptor(nextSeen_.index) + 8);
    const auto flags = static_cast<uint16_t>(element >> 48);
    const bool available = flags & flag::kAvailable, used = flags & flag::kUsed;
    if (available != nextSeen_.wrap || used != nextSeen_.wrap) break;
    const auto buffer = static_cast<uint16_t>(element >> 32);
    const auto length = static_cast<uint32_t>(element);
    if (buffer >= buffers()) throw std::runtime_error("the device used an unknown buffer");
    // In order, one used descriptor may stand for all buffers up to its own (2.8.12).
    for (bool last = false; !last && count < used_.size();) {
      const uint32_t id = options_.inOrder ? nextUsed_ : buffer;
      last = id == buffer;
      used_[count++] = {id, length};
      nextUsed_ = nextUsed_ + 1 == buffers() ? 0 : nextUsed_ + 1;
      nextSeen_ = after(nextSeen_, entriesPerBuffer());
    }
  }
  return count;
}

void DriverRing::add(std::span<const uint32_t> buffers, std::span<const Piece> pieces) {
  if (buffers.empty()) return;
  if (packed())
    addPacked(buffers, pieces);
  else
    addSplit(buffers, pieces);
}

void DriverRing::addSplit(std::span<const uint32_t> buffers, std::span<const Piece> pieces) {
  const uint16_t writable = direction_ == Direction::kReceive ? flag::kWrite : 0;
  for (const uint32_t buffer : buffers) {
    const uint32_t head = buffer * entriesPerBuffer();
    const bool rewrite = direction_ == Direction::kTransmit && !options_.indirect;
    if (!written_[buffer] || rewrite) {
      written_[buffer] = true;
      const auto own = pieces.first(options_.pieces);
      if (options_.indirect) {
        writeTable(buffer, own);
        store(descriptor(head), addressOf(tables_) + kDescriptorSize * options_.pieces * buffer);
        store(descriptor(head) + 8,
              half(static_cast<uint32_t>(kDescriptorSize * own.size()), flag::kIndirect, 0));
      } else {
        for (uint32_t i = 0; i < own.size(); ++i) {
          const bool last = i + 1 == own.size();
          const auto flags = static_cast<uint16_t>(writable | (last ? 0 : flag::kNext));
          store(descriptor(head + i), addressOf(own[i].data));
          store(descriptor(head + i) + 8,
                half(own[i].length, flags, static_cast<uint16_t>(last ? 0 : head + i + 1)));
        }
      }
    }
    const uint32_t place = available_++ & (options_.size - 1);
    store(driver_ + split::kRing + split::kAvailableElement * size_t{place},
          static_cast<uint16_t>(head));
    pieces = pieces.subspan(options_.pieces);
  }
  storeRelease(driver_ + split::kIndex, available_);
}

void DriverRing::addPacked(std::span<const uint32_t> buffers, std::span<const Piece> pieces) {
  const uint16_t writable = direction_ == Direction::kReceive ? flag::kWrite : 0;
  for (const uint32_t buffer : buffers) {
    const auto own = pieces.first(options_.pieces);
    const Position first = next_;
    const auto write = [&](Position at, uint64_t address, uint32_t length, uint16_t flags) {
      const uint16_t ready = at.wrap ? flag::kAvailable : flag::kUsed;
      store(descriptor(at.index), address);
      storeRelease(descriptor(at.index) + 8, half(length, static_cast<uint16_t>(buffer),
                                                  static_cast<uint16_t>(flags | ready)));
    };
    if (options_.indirect) {
      if (!written_[buffer]) writeTable(buffer, own);
      written_[buffer] = true;
      write(first, addressOf(tables_) + kDescriptorSize * options_.pieces * buffer,
            static_cast<uint32_t>(kDescriptorSize * own.size()), flag::kIndirect);
    } else {
      // The first descriptor comes last: with it, the device sees the whole chain (2.8.21).
      for (auto i = static_cast<uint32_t>(own.size()); i-- > 0;)
        write(after(first, i), addressOf(own[i].data), own[i].length,
              static_cast<uint16_t>(writable | (i + 1 == own.size() ? 0 : flag::kNext)));
    }
    next_ = after(first, entriesPerBuffer());
    addedSinceKick_ += entriesPerBuffer();
    pieces = pieces.subspan(options_.pieces);
  }
}

void DriverRing::writeTable(uint32_t buffer, std::span<const Piece> pieces) {
  const uint16_t writable = direction_ == Direction::kReceive ? flag::kWrite : 0;
  std::byte* table = tables_ + kDescriptorSize * options_.pieces * buffer;
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    const bool last = i + 1 == pieces.size();
    // A packed ring's tables have no links: the descriptors follow each other (2.8.7).
    const auto flags = static_cast<uint16_t>(writable | (last || packed() ? 0 : flag::kNext));
    store(table + kDescriptorSize * i, addressOf(pieces[i].data));
    store(table + kDescriptorSize * i + 8,
          packed() ? half(pieces[i].length, 0, flags)
                   : half(pieces[i].length, flags, static_cast<uint16_t>(last ? 0 : i + 1)));
  }
}

bool DriverRing::wantsKick() {
  fullFence();
  if (!packed()) {
    const auto added = static_cast<uint16_t>(available_ - kickedAt_);
    kickedAt_ = available_;
    if (added == 0) return false;
    if (!options_.eventIndex) return !(load<uint16_t>(device_ + split::kFlags) & split::kNoNotify);
    // 2.7.10
    const auto event =
        load<uint16_t>(device_ + split::kRing + split::kUsedElement * size_t{options_.size});
    return static_cast<uint16_t>(available_ - event - 1) < added;
  }
  const uint32_t added = addedSinceKick_;
  addedSinceKick_ = 0;
  if (added == 0) return false;
  const auto events = load<uint32_t>(device_);
  const uint32_t flags = events >> packed::kFlagsShift & packed::kFlagsMask;
  if (flags != packed::kDescriptor) return flags == packed::kEnable;
  // 2.8.10: how many entries before the next one is the one that the device waits for?
  const uint32_t event = events & packed::kOffsetMask;
  const bool wrap = events & packed::kWrap;
  const uint32_t behind =
      wrap == next_.wrap ? next_.index - event : next_.index + options_.size - event;
  return behind - 1 < added;
}

Position DriverRing::after(Position position, uint32_t entries) const {
  const uint32_t index = position.index + entries;
  if (index < options_.size) return {static_cast<uint16_t>(index), position.wrap};
  return {static_cast<uint16_t>(index - options_.size), !position.wrap};
}

void DriverRing::setCalls(bool on) {
  calls_ = on;
  askForCalls();
  fullFence();
}

void DriverRing::askForCalls() {
  if (packed()) {
    store(driver_, (calls_ ? packed::kEnable : packed::kDisable) << packed::kFlagsShift);
  } else if (options_.eventIndex) {
    // After the next buffer, or so far back that 65,535 buffers come first.
    store(driver_ + split::kRing + split::kAvailableElement * size_t{options_.size},
          static_cast<uint16_t>(calls_ ? seen_ : seen_ - 1));
  } else {
    store(driver_ + split::kFlags, calls_ ? uint16_t{0} : split::kNoInterrupt);
  }
}

}  // namespace vdpa::guest
