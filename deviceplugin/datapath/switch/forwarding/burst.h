// The frames that a poller forwards at once: those of one source, with their VLANs and requests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"

namespace vdpa::vswitch {

// Bit i stands for the burst's frame i.
using FrameSet = uint64_t;

// Belongs to one poller, which uses it again and again: 24 KiB of frames, and the list's 40.
struct Burst {
  static constexpr size_t kMaxFrames = 64;

  virtqueue::BufferList list;
  std::array<virtqueue::Frame, kMaxFrames> frames;  // without tags
  std::array<uint16_t, kMaxFrames> vlans;
  std::array<OffloadRequest, kMaxFrames> requests;  // only of those in `special`
  FrameSet special = 0;                             // those that are not plain: see isPlain()
  // For a capture of its source: whose tag was removed, and what was dropped; of the others, the
  // arrays have nothing.
  FrameSet untagged = 0, dropped = 0;
  std::array<uint16_t, kMaxFrames> tags;  // see tagControl()
  std::array<Drop, kMaxFrames> reasons;
  uint32_t longest = 0;  // bytes of the longest frame on a wire
  uint64_t now = 0;      // cycles: when the pass began

  bool isSpecial(size_t i) const { return special >> i & 1; }
  // A frame's segments, the bytes of the longest, and those of all.
  uint32_t segments(size_t i) const { return isSpecial(i) ? requests[i].segments : 1; }
  uint32_t segmentLength(size_t i) const {
    return isSpecial(i) ? requests[i].segmentLength : frames[i].length;
  }
  uint32_t wireBytes(size_t i) const {
    return isSpecial(i) ? requests[i].wireBytes : frames[i].length;
  }
};

// Calls visit(i) for each frame of the set, in their order.
template <typename Visit>
void forEachFrame(FrameSet set, const Visit& visit) {
  for (; set != 0; set &= set - 1) visit(static_cast<size_t>(__builtin_ctzll(set)));
}

inline uint64_t countOf(FrameSet set) {
  return static_cast<uint64_t>(__builtin_popcountll(set));
}

}  // namespace vdpa::vswitch
