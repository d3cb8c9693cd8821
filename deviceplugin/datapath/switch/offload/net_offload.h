// Unfinished checksums and frames to be segmented, as their senders describe them in a net header
// (virtio 1.2, 5.1.6.2): checked, passed on, or finished in software.
//
// The sender is not trusted, so neither is its header. A header is refused if it points outside its
// frame, points into the Ethernet header, or asks for an offload that the sender has not agreed on.
// The Ethernet header is excluded because the switch decides on it, and it must arrive unchanged.
// The driver's headerLength is only a hint (5.1.6.2.2) and is computed from the frame instead.
//
// A driver must not set DATA_VALID and RSC_INFO (5.1.6.2.1); they are ignored like unknown flags
// (5.1.6.2.2), so only an uplink's device can vouch for a checksum. A receiver treats a frame with
// NEEDS_CSUM as verified. Within a node that is right: the frame came from its sender's memory and
// crossed no wire.
//
// UFO is neither offered nor accepted; Linux has sent no such frames since 4.14.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {

// Segments of a frame: 64 KiB of 32 bytes each. More are refused, since their headers would cost
// the switch many times what they cost the sender.
inline constexpr uint32_t kMaxSegments = 2048;

// The offloads that a header asks of its frame's receiver. Made from a copy of the header.
struct OffloadRequest {
  // Sanitised: nothing in it points outside its frame. For a receiver that has all that is needed.
  virtqueue::NetHeader header;
  Offloads needed = Offloads::kNone;  // by a receiver that gets the frame as it is
  uint32_t segmentLength = 0;         // bytes of the longest segment, or of the unsegmented frame
  uint32_t wireBytes = 0;             // of all segments
  uint32_t segments = 1;
  // Of a frame to be segmented: IPv6 extension headers, with which no uplink's device can do it.
  bool extensions = false;
};

// Whether the header asks for nothing. Such a frame is forwarded with an empty header, whatever the
// other fields of its own are.
inline bool isPlain(const virtqueue::NetHeader& header) {
  return header.flags == 0 && header.gsoType == 0;
}

// False: the header does not fit its frame (bad_offload). `sender` has the offloads that the
// sending pod agreed on.
bool readRequest(const virtqueue::NetHeader& header, const virtqueue::Frame& frame, Offloads sender,
                 OffloadRequest& request);

// Finishes frames in software, for receivers that lack what they need. Belongs to one thread.
class Finisher {
 public:
  // Returns one or more frames with their headers, in memory of the finisher that is valid until
  // the next call. Offloads that `receiver` has are left to it. The frame is read once. Empty: its
  // sender has changed its headers since readRequest() (bad_offload).
  struct Finished {
    virtqueue::Frame frame;
    virtqueue::NetHeader header;
  };
  std::span<const Finished> finish(const virtqueue::Frame& frame, const OffloadRequest& request,
                                   Offloads receiver);

 private:
  std::span<const Finished> cut(const OffloadRequest& request, Offloads receiver);

  std::vector<std::byte> copy_;    // of the frame
  std::vector<std::byte> memory_;  // the segments, one after another
  std::vector<Finished> finished_;
};

}  // namespace vdpa::vswitch
