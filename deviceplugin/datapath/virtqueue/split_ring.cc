#include "deviceplugin/datapath/virtqueue/split_ring.h"

#include <fmt/core.h>

#include <algorithm>
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

// How far `now` is ahead of `before`.
uint16_t distance(uint16_t before, uint16_t now) {
  return static_cast<uint16_t>(now - before);
}

}  // namespace

SplitRing::SplitRing(const RingSetup& setup, const AddressMap& map)
    : size_(setup.size),
      mask_(static_cast<uint16_t>(setup.size - 1)),
      eventIndex_(setup.eventIndex),
      areas_(setup.areas),
      reader_(rulesOf(setup), map),
      seen_(setup.start.available.index),
      next_(seen_),
      taken_(seen_),
      leased_(setup.start.used.index),
      published_(leased_) {
  checkSize(Format::kSplit, size_);
  if (const uint16_t open = distance(published_, taken_); open > size_)
    throw VirtqueueError(
        fmt::format("the device stands at {} (available) and {} (used) in a ring of {} entries",
                    taken_, published_, size_));
}

// Reading.

void SplitRing::prefetch() const {
  __builtin_prefetch(areas_.driver + split::kIndex, 0);
  __builtin_prefetch(areas_.driver + split::kRing + split::kAvailableElement * (taken_ & mask_), 0);
  __builtin_prefetch(areas_.device + split::kIndex, 1);
  __builtin_prefetch(areas_.device + split::kRing + split::kUsedElement * (leased_ & mask_), 1);
}

size_t SplitRing::read(BufferList& list, size_t most) {
  if (fault()) [[unlikely]]
    return 0;
  size_t waiting = distance(next_, seen_);
  if (waiting < most) waiting = distance(next_, loadAvailableIndex());
  most = std::min(most, waiting);
  // In a local: to the compiler, every store to the list might change a member.
  uint16_t at = next_;
  size_t count = 0;
  for (; count < most; ++count, ++at) {
    if (list.full()) [[unlikely]] {
      list.setExhausted();
      break;
    }
    const uint16_t first = head(at);
    if (first >= size_) [[unlikely]] {
      reader_.fail(FaultKind::kHead, at & mask_, first, size_);
      break;
    }
    const Descriptor read = descriptor(first);
    if (!reader_.simple(list, read.address, read.length, read.flags, first)) [[unlikely]]
      if (!gather(list, at & mask_, first, read)) break;
  }
  next_ = at;
  return count;
}

// Acquire: what the driver wrote before it made buffers available is seen after this (2.7.13.3.1).
uint16_t SplitRing::loadAvailableIndex() {
  const auto index = loadAcquire<uint16_t>(areas_.driver + split::kIndex);
  // The ring has no room for more buffers than entries, given back or not (2.7.13).
  if (const uint16_t open = distance(published_, index); open > size_) [[unlikely]] {
    reader_.fail(FaultKind::kAvailableIndex, index & mask_, open, size_);
    return next_;
  }
  // The driver must not take buffers back (2.7.6.1). If these are open, nothing is new; once they
  // are given back, the index is behind them, which is the fault above.
  if (distance(published_, index) < distance(published_, next_)) [[unlikely]]
    return next_;
  return seen_ = index;
}

uint16_t SplitRing::head(uint16_t index) const {
  return load<uint16_t>(areas_.driver + split::kRing + split::kAvailableElement * (index & mask_));
}

// Two loads, one of each half. If the driver writes in between, the result is still a descriptor
// that it could have written, and is checked like one.
Descriptor SplitRing::descriptor(uint16_t index) const {
  const std::byte* at = areas_.descriptors + kDescriptorSize * index;
  const auto rest = load<uint64_t>(at + 8);
  return {load<uint64_t>(at), static_cast<uint32_t>(rest), static_cast<uint16_t>(rest >> 32),
          static_cast<uint16_t>(rest >> 48)};
}

// A chain is as long as the ring at most (2.7.5), which also ends one that loops.
bool SplitRing::gather(BufferList& list, uint16_t entry, uint16_t head, Descriptor descriptor) {
  if (!reader_.begin(list, entry)) return false;
  for (uint32_t count = 1;; ++count) {
    if (descriptor.flags & flag::kIndirect) return gatherTable(head, descriptor);
    if (count > size_) return reader_.fail(FaultKind::kChainLength, 0, size_);
    if (!reader_.add(descriptor.address, descriptor.length, descriptor.flags)) return false;
    if (!(descriptor.flags & flag::kNext)) return reader_.end(head, 1);
    if (descriptor.next >= size_) return reader_.fail(FaultKind::kNext, descriptor.next, size_);
    descriptor = this->descriptor(descriptor.next);
  }
}

// The descriptors of a table are chained like the ring's. A table may follow descriptors of the
// ring, and is the last of them; whether it is writable does not matter (2.7.5.3).
bool SplitRing::gatherTable(uint16_t head, const Descriptor& table) {
  const uint32_t entries = reader_.tableEntries(table.length);
  if (entries == 0) return false;
  if (table.flags & flag::kNext) return reader_.fail(FaultKind::kIndirectInChain, 0, 0);
  for (uint32_t index = 0;;) {
    std::byte bytes[kDescriptorSize];
    if (!reader_.readTable(table.address + kDescriptorSize * index, bytes)) return false;
    Descriptor descriptor;
    std::memcpy(&descriptor, bytes, sizeof descriptor);
    if (descriptor.flags & flag::kIndirect) return reader_.fail(FaultKind::kIndirectInTable, 0, 0);
    if (!reader_.add(descriptor.address, descriptor.length, descriptor.flags)) return false;
    if (!(descriptor.flags & flag::kNext)) return reader_.end(head, 1);
    if (descriptor.next >= entries) return reader_.fail(FaultKind::kNext, descriptor.next, entries);
    index = descriptor.next;
  }
}

// Giving back.

Lease SplitRing::take(const BufferList&, size_t count) {
  next_ = taken_;
  if (count == 0 || order_.full()) return {};
  Lease lease;
  lease.count = static_cast<uint16_t>(count);
  lease.start = {leased_, false};
  leased_ = static_cast<uint16_t>(leased_ + count);
  next_ = taken_ = static_cast<uint16_t>(taken_ + count);
  lease.end = {leased_, false};
  order_.opened();
  return lease;
}

void SplitRing::fill(Lease& lease, const BufferList& list) const {
  for (uint16_t i = 0; i < lease.count; ++i) {
    const auto at = static_cast<uint16_t>(lease.start.index + i) & mask_;
    std::byte* element = areas_.device + split::kRing + split::kUsedElement * at;
    store(element, uint32_t{list[i].id});
    store(element + 4, list[i].written);
  }
  if (log_) [[unlikely]]
    logUsed(lease, list);
}

// Release: the elements, and the buffers that they stand for, are written before the index is
// (2.7.8.2).
bool SplitRing::publish(const Lease& lease) {
  if (lease.count == 0) return false;
  const uint16_t before = published_;
  Position position{published_, false};
  const bool moved =
      order_.finished(lease, position, [&position](const Lease& next) { position = next.end; });
  if (!moved) return false;
  published_ = position.index;
  storeRelease(areas_.device + split::kIndex, published_);
  if (log_) [[unlikely]]
    logDevice(split::kIndex, sizeof published_);
  return wantsNotification(before);
}

// The driver's wish is loaded after the index is stored, or a driver that goes to sleep in between
// would miss both (2.7.7.2).
bool SplitRing::wantsNotification(uint16_t before) {
  fullFence();
  // The previous device may have died between its last index and the notification.
  if (!notified_) return notified_ = true;
  if (!eventIndex_)
    return (load<uint16_t>(areas_.driver + split::kFlags) & split::kNoInterrupt) == 0;
  const auto event =
      load<uint16_t>(areas_.driver + split::kRing + split::kAvailableElement * size_);
  // The element that the event index names is among those from `before` on.
  return distance(before, event) < distance(before, published_);
}

// The driver's notifications.

bool SplitRing::available() const {
  return loadAcquire<uint16_t>(areas_.driver + split::kIndex) != taken_;
}

bool SplitRing::requestNotifications() {
  if (eventIndex_) {
    store(areas_.device + split::kRing + split::kUsedElement * size_, taken_);
    if (log_) [[unlikely]]
      logDevice(split::kRing + split::kUsedElement * size_, sizeof taken_);
  } else {
    store(areas_.device + split::kFlags, uint16_t{0});
    if (log_) [[unlikely]]
      logDevice(split::kFlags, sizeof(uint16_t));
  }
  fullFence();
  return available();
}

// With event indexes there is nothing to say: the driver notifies when its index passes the one
// that was stored last, which is behind (2.7.10.2).
void SplitRing::suppressNotifications() {
  if (eventIndex_) return;
  store(areas_.device + split::kFlags, split::kNoNotify);
  if (log_) [[unlikely]]
    logDevice(split::kFlags, sizeof(uint16_t));
}

// The log of dirty pages.

void SplitRing::logUsed(const Lease& lease, const BufferList& list) const {
  log_->markWritten(list, lease.count);
  for (uint16_t i = 0; i < lease.count; ++i) {
    const auto at = static_cast<uint16_t>(lease.start.index + i) & mask_;
    logDevice(split::kRing + split::kUsedElement * at, split::kUsedElement);
  }
}

void SplitRing::logDevice(size_t offset, size_t bytes) const {
  log_->mark(areas_.devicePhysical + offset, bytes);
}

}  // namespace vdpa::virtqueue
