// Two bits of each descriptor show its owner, in terms of the wrap counter w of the lap in which it
// was written: available(w) has AVAIL = w and USED = !w, used(w) has both equal to w. With the
// device at entry p in lap c, the ring reads from its start:
//
//   available(!c)  already available again, for the next lap
//   used(c)        returned in this lap
//   --- p
//   available(c)   open
//   used(!c)       returned in the last lap, not available again yet
//
// A used descriptor stands for a whole chain. The chain's other descriptors keep what the driver
// wrote and look available; rte_vhost leaves NEXT in the flags of the used one, which distinguishes
// them.
#include "deviceplugin/datapath/vhost_user/packed_position.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::vhost_user {

using virtqueue::PackedDescriptor;
namespace flag = virtqueue::flag;

namespace {

class Ring {
 public:
  Ring(size_t index, std::span<const PackedDescriptor> entries)
      : index_(index), entries_(entries) {}

  size_t index() const { return index_; }
  size_t size() const { return entries_.size(); }
  bool used(size_t i) const { return availableBit(i) == usedBit(i); }
  bool lap(size_t i) const { return availableBit(i); }
  bool next(size_t i) const { return entries_[i].flags & flag::kNext; }

  // The entry after the chain that starts at i; beyond size() if the chain wraps around.
  size_t afterChain(size_t i) const {
    size_t end = i;
    while (next(end % size()) && end - i < size()) ++end;
    return end + 1;
  }

  bool hasChains() const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [](const auto& entry) { return entry.flags & flag::kNext; });
  }

  PackedDescriptor asUsed(size_t i) const {
    PackedDescriptor descriptor = entries_[i];
    descriptor.id = entries_[(afterChain(i) - 1) % size()].id;  // a chain's last entry has its id
    descriptor.flags = lap(i) ? descriptor.flags | flag::kUsed
                              : descriptor.flags & ~(flag::kUsed | flag::kAvailable);
    return descriptor;
  }

  ProtocolError contradiction(size_t i) const {
    return protocolError(
        "ring {}: the flags of its descriptors contradict each other at entry {}; "
        "the driver must reset",
        index_, i);
  }

 private:
  bool availableBit(size_t i) const { return entries_[i].flags & flag::kAvailable; }
  bool usedBit(size_t i) const { return entries_[i].flags & flag::kUsed; }

  size_t index_;
  std::span<const PackedDescriptor> entries_;
};

// The last entry returned in the lap that the first returned entry belongs to.
std::optional<size_t> lastReturned(const Ring& ring) {
  std::optional<size_t> last;
  bool laterLap = false;
  for (size_t i = 0; i < ring.size(); ++i) {
    if (!ring.used(i)) continue;
    if (!last || ring.lap(i) == ring.lap(*last)) {
      if (laterLap) throw ring.contradiction(i);
      last = i;
    } else {
      laterLap = true;
    }
  }
  return last;
}

// Every entry is available: the lap changes where the device is. With chains that is not certain:
// the rest of a chain whose first entry was reused looks like a buffer of the previous lap.
uint32_t positionWithoutReturned(const Ring& ring) {
  if (ring.hasChains())
    throw protocolError(
        "ring {}: cannot determine where the engine stopped: the driver chains "
        "descriptors and has none to reclaim; the driver must reset",
        ring.index());
  size_t position = 0;
  while (position < ring.size() && ring.lap(position) == ring.lap(0)) ++position;
  for (size_t i = position; i < ring.size(); ++i)
    if (ring.lap(i) == ring.lap(0)) throw ring.contradiction(i);
  if (position == ring.size()) return ring.lap(0) ? 1 << 15 : 0;
  return static_cast<uint32_t>(position) | (ring.lap(position) ? 1 << 15 : 0);
}

// The engine passed the entries in [begin, end) in lap `lap`. Collects those that are neither
// returned nor part of a returned chain.
void collectUnfinished(const Ring& ring, size_t begin, size_t end, bool lap,
                       PackedPosition& position) {
  // With chains, entries that look open at the driver's end of the range are most likely the rest
  // of a chain whose first entry the driver has already reused: they are the driver's.
  if (ring.hasChains())
    while (begin < end && !ring.used(begin) && ring.lap(begin) == lap) ++begin;
  for (size_t i = begin; i < end; i = ring.afterChain(i)) {
    if (ring.lap(i) != lap) throw ring.contradiction(i);
    if (!ring.used(i)) position.unfinished.emplace_back(i, ring.asUsed(i));
  }
}

}  // namespace

PackedPosition packedPosition(size_t ringIndex, std::span<const PackedDescriptor> entries) {
  const Ring ring(ringIndex, entries);
  const auto last = lastReturned(ring);
  if (!last) return {positionWithoutReturned(ring), {}};

  const bool lap = ring.lap(*last);
  const size_t behind = ring.afterChain(*last);
  const size_t position = behind % ring.size();
  const bool positionLap = behind < ring.size() ? lap : !lap;
  PackedPosition result{static_cast<uint32_t>(position) | (positionLap ? 1 << 15 : 0), {}};

  // Before the position: entries available again for the next lap, then returned ones.
  size_t begin = behind < ring.size() ? 0 : position;
  while (begin < *last && !ring.used(begin) && ring.lap(begin) != lap) ++begin;
  const bool givenAgain = begin > 0;
  collectUnfinished(ring, begin, *last, lap, result);
  // After it: open entries, then those returned in the last lap.
  size_t open = behind;
  while (open < ring.size() && !ring.used(open) && ring.lap(open) == lap) ++open;
  if (open < ring.size() && givenAgain && behind < ring.size()) throw ring.contradiction(open);
  if (open < ring.size()) collectUnfinished(ring, open, ring.size(), !lap, result);
  return result;
}

}  // namespace vdpa::vhost_user
