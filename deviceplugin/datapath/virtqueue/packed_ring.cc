#include "deviceplugin/datapath/virtqueue/packed_ring.h"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/dirty_log.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {
namespace {

// Length, ID and flags of a descriptor are its second half: 8 bytes, loaded and stored at once.
constexpr size_t kHalf = 8;

// Available: AVAIL is as the wrap counter of the lap, USED is not (2.8.1).
bool isAvailable(uint16_t flags, bool wrap) {
  const bool available = (flags & flag::kAvailable) != 0;
  const bool used = (flags & flag::kUsed) != 0;
  return available == wrap && used != wrap;
}

UsedElement elementOf(const Buffer& buffer) {
  return {buffer.id, buffer.entries > 1, buffer.written};
}

}  // namespace

PackedRing::PackedRing(const RingSetup& setup, const AddressMap& map)
    : size_(setup.size),
      eventIndex_(setup.eventIndex),
      transmit_(setup.direction == Direction::kTransmit),
      usedFlags_(transmit_ ? uint16_t{0} : flag::kWrite),
      areas_(setup.areas),
      reader_(rulesOf(setup), map),
      next_(setup.start.available),
      taken_(next_),
      leased_(setup.start.used),
      published_(leased_),
      open_(distance(published_, taken_)) {
  checkSize(Format::kPacked, size_);
  if (taken_.index >= size_ || published_.index >= size_ || open_ > size_)
    throw VirtqueueError(fmt::format(
        "the device stands at {}/{} (available) and {}/{} (used) in a ring of {} entries",
        taken_.index, int{taken_.wrap}, published_.index, int{published_.wrap}, size_));
}

Position PackedRing::after(Position position, uint32_t entries) const {
  const uint32_t index = position.index + entries;
  if (index < size_) return {static_cast<uint16_t>(index), position.wrap};
  return {static_cast<uint16_t>(index - size_), !position.wrap};
}

uint32_t PackedRing::distance(Position from, Position to) const {
  return to.index - from.index + (from.wrap == to.wrap ? 0 : size_);
}

// Reading.

void PackedRing::prefetch() const {
  __builtin_prefetch(descriptorAt(taken_), 1);
  __builtin_prefetch(areas_.driver, 0);
}

size_t PackedRing::read(BufferList& list, size_t most) {
  if (fault()) [[unlikely]]
    return 0;
  // In locals: to the compiler, every store to the list might change a member.
  Position at = next_;
  uint32_t left = size_ - open_ - ahead_;  // more cannot be available, whatever the flags say
  size_t count = 0;
  while (count < most && left > 0) {
    const PackedDescriptor read = descriptor(at);
    if (!isAvailable(read.flags, at.wrap)) break;
    if (list.full()) [[unlikely]] {
      list.setExhausted();
      break;
    }
    uint32_t entries = 1;
    if (!reader_.simple(list, read.address, read.length, read.flags, read.id)) [[unlikely]] {
      if (!gather(list, at, read, left)) break;
      entries = list[list.size() - 1].entries;
    }
    at = after(at, entries);
    left -= entries;
    ++count;
  }
  next_ = at;
  ahead_ = size_ - open_ - left;
  return count;
}

// The half with the flags first, acquiring: once they say available, the rest is there
// (2.8.21.1.1).
PackedDescriptor PackedRing::descriptor(Position position) const {
  const std::byte* at = descriptorAt(position);
  const auto half = loadAcquire<uint64_t>(at + kHalf);
  return {load<uint64_t>(at), static_cast<uint32_t>(half), static_cast<uint16_t>(half >> 32),
          static_cast<uint16_t>(half >> 48)};
}

// The rest of a chain is there when its first descriptor is available (2.8.6), and cannot be longer
// than what the ring has left.
bool PackedRing::gather(BufferList& list, Position position, PackedDescriptor descriptor,
                        uint32_t most) {
  if (!reader_.begin(list, position.index)) return false;
  if (descriptor.flags & flag::kIndirect) return gatherTable(descriptor);
  for (uint32_t count = 1;; ++count) {
    if (descriptor.flags & flag::kIndirect) return reader_.fail(FaultKind::kIndirectInChain, 0, 0);
    if (!reader_.add(descriptor.address, descriptor.length, descriptor.flags)) return false;
    if (!(descriptor.flags & flag::kNext))
      return reader_.end(descriptor.id, static_cast<uint16_t>(count));
    if (count == most) return reader_.fail(FaultKind::kChainLength, 0, most);
    position = after(position, 1);
    descriptor = this->descriptor(position);
  }
}

// All descriptors of a table belong to the buffer, in their order; of their flags only WRITE counts
// (2.8.7). A table is no part of a chain (2.8.19).
bool PackedRing::gatherTable(const PackedDescriptor& table) {
  const uint32_t entries = reader_.tableEntries(table.length);
  if (entries == 0) return false;
  if (table.flags & flag::kNext) return reader_.fail(FaultKind::kIndirectInChain, 0, 0);
  for (uint32_t index = 0; index < entries; ++index) {
    std::byte bytes[kDescriptorSize];
    if (!reader_.readTable(table.address + kDescriptorSize * index, bytes)) return false;
    PackedDescriptor descriptor;
    std::memcpy(&descriptor, bytes, sizeof descriptor);
    // DPDK's driver has WRITE in the table's first descriptor of a packet that it sends. To read it
    // harms nobody.
    if (transmit_) descriptor.flags = 0;
    if (!reader_.add(descriptor.address, descriptor.length, descriptor.flags)) return false;
  }
  return reader_.end(table.id, 1);
}

// Giving back.

Lease PackedRing::take(const BufferList& list, size_t count) {
  next_ = taken_;
  ahead_ = 0;
  if (count == 0 || order_.full()) return {};
  uint32_t entries = 0;
  for (size_t i = 0; i < count; ++i) entries += list[i].entries;
  Lease lease;
  lease.count = static_cast<uint16_t>(count);
  lease.entries = static_cast<uint16_t>(entries);
  lease.start = leased_;
  lease.end = leased_ = after(leased_, entries);
  next_ = taken_ = after(taken_, entries);
  open_ += entries;
  order_.opened();
  return lease;
}

// Each buffer's used descriptor is written, at the place of its first one: with in-order use the
// last of a burst would do (2.8.8), but then nobody could tell from the ring where the device was
// when it died.
//
// Those of a transmit queue in order, so that the ring says it at every moment. In a receive queue
// a packet may have several buffers, which the driver must see at once: the first one of a burst,
// for which it waits, comes last (2.8.9).
void PackedRing::fill(Lease& lease, const BufferList& list) const {
  if (lease.count == 0) return;
  Position position = lease.start;
  lease.first = elementOf(list[0]);
  if (transmit_) markUsed(position, lease.first);
  for (uint16_t i = 1; i < lease.count; ++i) {
    position = after(position, list[i - 1u].entries);
    markUsed(position, elementOf(list[i]));
  }
  if (log_) [[unlikely]]
    logUsed(lease, list);
}

// Release: the buffer, and what was marked before, is there when the driver sees it.
//
// NEXT says nothing in a used descriptor (2.8.6). It stays in that of a chain, whose other
// descriptors stay as the driver wrote them: where a device has died, it is what tells them from
// available ones.
void PackedRing::markUsed(Position position, const UsedElement& element) const {
  const auto flags = static_cast<uint16_t>(usedFlags_ | (element.chained ? flag::kNext : 0) |
                                           (position.wrap ? flag::kAvailable | flag::kUsed : 0));
  storeRelease(descriptorAt(position) + kHalf,
               element.written | uint64_t{element.id} << 32 | uint64_t{flags} << 48);
}

bool PackedRing::publish(const Lease& lease) {
  if (lease.count == 0) return false;
  const Position before = published_;
  const bool moved = order_.finished(lease, published_, [this](const Lease& next) {
    if (!transmit_) markUsed(next.start, next.first);
    if (log_) [[unlikely]]
      logDescriptor(next.start);
    published_ = next.end;
    open_ -= next.entries;
  });
  return moved && wantsNotification(before);
}

// The driver's wish is loaded after the descriptors are stored, or a driver that goes to sleep in
// between would miss both (2.8.22).
bool PackedRing::wantsNotification(Position before) {
  fullFence();
  const auto event = load<uint32_t>(areas_.driver);
  // The previous device may have died between its last descriptor and the notification.
  if (!notified_) return notified_ = true;
  const uint32_t flags = event >> packed::kFlagsShift & packed::kFlagsMask;
  if (flags == packed::kDisable) return false;
  if (flags != packed::kDescriptor || !eventIndex_) return true;
  const Position wanted{static_cast<uint16_t>(event & packed::kOffsetMask),
                        (event & packed::kWrap) != 0};
  // Its descriptor is among those from `before` on.
  return distance(before, wanted) < distance(before, published_);
}

// The driver's notifications.

bool PackedRing::available() const {
  return isAvailable(descriptor(taken_).flags, taken_.wrap);
}

bool PackedRing::requestNotifications() {
  const uint32_t place = taken_.index | (taken_.wrap ? packed::kWrap : 0);
  setEvents(eventIndex_ ? place | packed::kDescriptor << packed::kFlagsShift
                        : packed::kEnable << packed::kFlagsShift);
  fullFence();
  return available();
}

void PackedRing::suppressNotifications() {
  setEvents(packed::kDisable << packed::kFlagsShift);
}

void PackedRing::setEvents(uint32_t value) {
  store(areas_.device, value);
  if (log_) [[unlikely]]
    log_->mark(areas_.devicePhysical, sizeof value);
}

// The log of dirty pages.

void PackedRing::logUsed(const Lease& lease, const BufferList& list) const {
  log_->markWritten(list, lease.count);
  Position position = after(lease.start, list[0].entries);
  for (uint16_t i = 1; i < lease.count; ++i) {
    logDescriptor(position);
    position = after(position, list[i].entries);
  }
}

void PackedRing::logDescriptor(Position position) const {
  log_->mark(areas_.descriptorsPhysical + kDescriptorSize * position.index, kDescriptorSize);
}

}  // namespace vdpa::virtqueue
