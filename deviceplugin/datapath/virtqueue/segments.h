// A walk along the pieces of buffers: of one, or of several that one packet is spread over.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"

namespace vdpa::virtqueue {

class SegmentWalk {
 public:
  // From the first byte of a buffer on.
  SegmentWalk(const BufferList& list, const Buffer& buffer)
      : single_{buffer.data, buffer.physical, buffer.length},
        pieces_(buffer.pieces == 1 ? std::span(&single_, 1) : list.segments(buffer)) {}
  SegmentWalk(const SegmentWalk&) = delete;
  SegmentWalk& operator=(const SegmentWalk&) = delete;

  bool done() const { return pieces_.empty(); }
  std::byte* data() const { return pieces_[0].data + offset_; }
  // Bytes there are from data() on.
  uint32_t length() const { return pieces_[0].length - offset_; }

  void advance(uint32_t bytes) {
    while (bytes > 0 && !done()) {
      const uint32_t part = std::min(bytes, length());
      offset_ += part;
      bytes -= part;
      if (length() > 0) continue;
      pieces_ = pieces_.subspan(1);
      offset_ = 0;
    }
  }

 private:
  const Segment single_;
  std::span<const Segment> pieces_;
  uint32_t offset_ = 0;
};

}  // namespace vdpa::virtqueue
