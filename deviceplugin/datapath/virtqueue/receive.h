// Packets into buffers of a receive queue (virtio 1.2, 5.1.6.3 and 5.1.6.4).
//
//   reserve()   under the ring's lock, if several threads have it: which buffers each packet gets
//   write()     outside it, for each packet that got some
//   fill()      outside it: the used elements, into the places of the lease
//   publish()   under the lock again: lets the driver see them; true if it wants to be notified
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"

namespace vdpa::virtqueue {

// As negotiated with the receiving driver.
struct NetFormat {
  uint32_t headerSize = kHeaderSize;
  bool mergeable = false;  // VIRTIO_NET_F_MRG_RXBUF
};

// Where a packet goes.
struct Place {
  enum class Room : uint8_t {
    kFound,
    kFull,      // the driver has made too few buffers available
    kTooShort,  // the next buffer, or as many as can be merged, are too small: 5.1.6.3.2
  };
  uint16_t first = 0;  // index in the list
  uint16_t count = 0;  // buffers
  Room room = Room::kFull;
};

// Buffers that one packet may be spread over: 64 KiB have room in 43 of Linux's smallest.
inline constexpr uint16_t kMaxMerged = 256;

// Reserves buffers for packets of these lengths (bytes, without headers), in their order, and takes
// them into the lease. A packet without room is skipped. Returns how many packets have got their
// `places`: all, unless the list was full; then call again with the rest, after publish().
template <Ring R>
size_t reserve(R& ring, const NetFormat& format, std::span<const uint32_t> lengths,
               std::span<Place> places, BufferList& list, Lease& lease);

extern template size_t reserve(SplitRing&, const NetFormat&, std::span<const uint32_t>,
                               std::span<Place>, BufferList&, Lease&);
extern template size_t reserve(PackedRing&, const NetFormat&, std::span<const uint32_t>,
                               std::span<Place>, BufferList&, Lease&);

// Stores a packet and its header, with `buffers` of the place, at a place that reserve() has found.
void write(BufferList& list, const Place& place, const NetFormat& format, const NetHeader& header,
           const Frame& frame);

// Prefetches the cache lines that write() will store to.
inline void prefetchPlace(const BufferList& list, const Place& place, uint32_t bytes) {
  constexpr uint32_t kLine = 64, kMost = 24 * kLine;
  if (place.room != Place::Room::kFound || list[place.first].pieces != 1) return;
  const Buffer& buffer = list[place.first];
  for (uint32_t at = 2 * kLine; at < bytes && at < buffer.length && at < kMost; at += kLine)
    __builtin_prefetch(buffer.data + at, 1);
}

// Reads a byte of each page that write() will store to, if the buffer has several pieces or there
// are several buffers: in any page of the driver's, each, which it can make expensive by taking
// them out of its memory. What they take can so be told from what copying takes. `bytes` of the
// packet and its header.
void touchPieces(const BufferList& list, const Place& place, uint32_t bytes);
inline void touchPlace(const BufferList& list, const Place& place, uint32_t bytes) {
  if (place.room != Place::Room::kFound) return;
  if (place.count != 1 || list[place.first].pieces != 1) [[unlikely]]
    touchPieces(list, place, bytes);
}

}  // namespace vdpa::virtqueue
