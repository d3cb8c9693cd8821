// What a ring occupies in memory, for everyone who checks or lays out one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {

enum class Format : uint8_t { kSplit, kPacked };

// The three areas of a ring (virtio 1.2, 2.6): sizes and alignments in bytes, by 2.7 and 2.8.10.1.
struct RingLayout {
  struct Area {
    uint64_t size;
    uint64_t alignment;
  };
  Area descriptors;
  Area driver;
  Area device;
};

// Split rings end with an event index if it was negotiated (VIRTIO_F_EVENT_IDX); drivers that lack
// it may leave it out.
constexpr RingLayout ringLayout(Format format, uint32_t size, bool eventIndex) {
  const uint64_t entries = size;
  const RingLayout::Area descriptors{kDescriptorSize * entries, kDescriptorSize};
  if (format == Format::kPacked)
    return {descriptors, {packed::kEventSize, 4}, {packed::kEventSize, 4}};
  const uint64_t event = eventIndex ? split::kEventIndex : 0;
  return {descriptors,
          {split::kRing + split::kAvailableElement * entries + event, 2},
          {split::kRing + split::kUsedElement * entries + event, 4}};
}

}  // namespace vdpa::virtqueue
