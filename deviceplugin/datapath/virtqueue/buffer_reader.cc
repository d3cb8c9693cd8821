#include "deviceplugin/datapath/virtqueue/buffer_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {

BufferReader::BufferReader(const Rules& rules, const AddressMap& map)
    : rules_(rules),
      wanted_(rules.direction == Direction::kReceive ? flag::kWrite : 0),
      access_(rules.direction == Direction::kReceive ? Access::kWrite : Access::kRead),
      map_(&map) {}

bool BufferReader::begin(BufferList& list, uint16_t entry) {
  if (list.segmentRoom() < rules_.chainBudget) {
    list.setExhausted();
    return false;
  }
  list_ = &list;
  entry_ = entry;
  firstSegment_ = static_cast<uint16_t>(list.segmentCount());
  pieces_ = 0;
  steps_ = 0;
  length_ = 0;
  return true;
}

bool BufferReader::add(uint64_t address, uint32_t length, uint16_t flags) {
  if ((flags & flag::kWrite) != wanted_)
    return fail(wanted_ ? FaultKind::kNotWritable : FaultKind::kNotReadable, address, length);
  if (!step()) return false;
  length_ += length;
  if (length_ > UINT32_MAX) return fail(FaultKind::kBufferLength, length_, UINT32_MAX);
  for (bool first = true; length > 0; first = false) {
    // A descriptor that spans ranges costs as many steps as it has pieces.
    if (!first && !step()) return false;
    const Range* range = find(address, length, access_);
    if (!range) return false;
    const auto part = static_cast<uint32_t>(std::min<uint64_t>(length, range->from(address)));
    list_->addSegment({range->at(address), range->physicalAt(address), part});
    ++pieces_;
    address += part;
    length -= part;
  }
  return true;
}

// begin() has seen to it that the list has room for the whole budget.
bool BufferReader::step() {
  if (++steps_ > rules_.chainBudget) return fail(FaultKind::kChainLength, 0, rules_.chainBudget);
  list_->addStep();
  return true;
}

bool BufferReader::end(uint16_t id, uint16_t entries) {
  if (length_ < rules_.shortest) return fail(FaultKind::kTooShort, length_, rules_.shortest);
  Buffer buffer{.length = static_cast<uint32_t>(length_),
                .id = id,
                .entries = entries,
                .pieces = pieces_,
                .segment = firstSegment_};
  if (pieces_ > 0) {
    const Segment& first = list_->segments(buffer)[0];
    buffer.data = first.data;
    buffer.physical = first.physical;
    prefetch(buffer.data);
  }
  list_->push(buffer);
  list_ = nullptr;
  return true;
}

bool BufferReader::readTable(uint64_t address, std::byte (&descriptor)[kDescriptorSize]) {
  for (size_t done = 0; done < kDescriptorSize;) {
    const Range* range = find(address + done, kDescriptorSize - done, Access::kRead);
    if (!range) return false;
    const size_t part = std::min<uint64_t>(kDescriptorSize - done, range->from(address + done));
    snapshot(descriptor + done, range->at(address + done), part);
    done += part;
  }
  return true;
}

uint32_t BufferReader::tableEntries(uint32_t bytes) {
  if (!rules_.indirect) {
    fail(FaultKind::kIndirect, 0, 0);
    return 0;
  }
  if (bytes == 0 || bytes % kDescriptorSize != 0) {
    fail(FaultKind::kTableSize, bytes, kDescriptorSize);
    return 0;
  }
  return bytes / kDescriptorSize;
}

const Range* BufferReader::find(uint64_t address, uint64_t length, Access access) {
  const Range& range = (*map_)[map_->find(address, hint_)];
  if (range.has(address) && allows(range.access, access)) return &range;
  if (map_->mayGrow()) {
    miss_ = Miss{address, access};
    giveUp();
  } else {
    fail(FaultKind::kOutside, address, length);
  }
  return nullptr;
}

bool BufferReader::fail(FaultKind kind, uint16_t entry, uint64_t value, uint64_t limit) {
  fault_ = {kind, entry, value, limit};
  return giveUp();
}

bool BufferReader::giveUp() {
  if (list_) list_->dropSegments(firstSegment_);
  list_ = nullptr;
  return false;
}

}  // namespace vdpa::virtqueue
