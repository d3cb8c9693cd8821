#include "deviceplugin/datapath/virtqueue/receive.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring.h"
#include "deviceplugin/datapath/virtqueue/segments.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"

namespace vdpa::virtqueue {
namespace {

// How many buffers of a list, from `from` on, have room for so many bytes; more are read as needed.
// 0: not even `most` have, or there are no more.
template <Ring R>
size_t buffersFor(R& ring, BufferList& list, size_t from, uint64_t bytes, size_t most) {
  uint64_t room = 0;
  for (size_t count = 0; count < most; ++count) {
    if (from + count == list.size() && ring.read(list, 1) == 0) return 0;
    room += list[from + count].length;
    if (room >= bytes) return count + 1;
  }
  return 0;
}

// A header that is the same already is not stored: buffers are used again and again, and a line
// that nobody writes to stays in the cache of whoever reads it.
//
// It is made in registers. A load of bytes that several stores have just written waits until these
// have reached the cache, and with them all earlier ones: those to lines of other cores, which take
// longer than everything else here.
template <uint32_t kSize>
void storeHeader(std::byte* to, const NetHeader& header, uint16_t buffers) {
  uint64_t front, frontThere;
  std::memcpy(&front, &header, sizeof front);
  uint32_t back = header.checksumOffset, backThere = 0;
  if constexpr (kSize == kHeaderSize) back |= uint32_t{buffers} << 16;
  copyBytes(reinterpret_cast<std::byte*>(&frontThere), to, sizeof front);
  copyBytes(reinterpret_cast<std::byte*>(&backThere), to + sizeof front, kSize - sizeof front);
  if (((front ^ frontThere) | (back ^ backThere)) == 0) [[likely]]
    return;
  copyBytes(to, reinterpret_cast<const std::byte*>(&front), sizeof front);
  copyBytes(to + sizeof front, reinterpret_cast<const std::byte*>(&back), kSize - sizeof front);
}

// By copies of a fixed size, as snapshotHead().
void storeHead(std::byte* to, const Frame& frame) {
  const uint32_t length = frame.headLength();
  const std::byte* head = frame.head.data();
  if (length >= 64) {
    copyBytes(to, head, 64);
    if (length > 64) copyBytes(to + length - 8, head + length - 8, 8);
  } else if (length >= 32) {
    copyBytes(to, head, 32);
    copyBytes(to + length - 32, head + length - 32, 32);
  } else {
    copyBytes(to, head, length);
  }
}

// Stores to the buffers of a place one after another, each full before the next is begun
// (5.1.6.4.1).
class Spread {
 public:
  Spread(BufferList& list, const Place& place) : list_(list), buffer_(place.first) {}

  void append(const std::byte* data, uint32_t bytes) {
    while (bytes > 0) {
      Buffer& buffer = list_[buffer_];
      const Segment piece = buffer.pieces == 1
                                ? Segment{buffer.data, buffer.physical, buffer.length}
                                : list_.segments(buffer)[piece_];
      const uint32_t part = std::min(bytes, piece.length - offset_);
      copyBytes(piece.data + offset_, data, part);
      buffer.written += part;
      offset_ += part;
      data += part;
      bytes -= part;
      if (offset_ == piece.length) nextPiece(buffer);
    }
  }

 private:
  void nextPiece(const Buffer& buffer) {
    offset_ = 0;
    if (++piece_ < buffer.pieces) return;
    piece_ = 0;
    ++buffer_;
  }

  BufferList& list_;
  size_t buffer_;
  size_t piece_ = 0;
  uint32_t offset_ = 0;
};

void writeInPieces(BufferList& list, const Place& place, uint32_t headerSize, NetHeader header,
                   const Frame& frame) {
  header.buffers = place.count;
  Spread to(list, place);
  std::array<std::byte, sizeof header> bytes;
  std::memcpy(bytes.data(), &header, sizeof header);
  to.append(bytes.data(), headerSize);
  to.append(frame.head.data(), frame.headBytes);
  uint32_t rest = frame.restLength();
  if (rest == 0) return;
  if (frame.data) {
    to.append(frame.data + Frame::kHeadSize, rest);
    return;
  }
  SegmentWalk from(*frame.list, *frame.buffer);
  from.advance(frame.headerSize + Frame::kHeadSize);
  while (rest > 0) {
    const uint32_t part = std::min(rest, from.length());
    to.append(from.data(), part);
    from.advance(part);
    rest -= part;
  }
}

void touchPages(const std::byte* data, uint32_t bytes) {
  constexpr uintptr_t kPage = 4096;
  load<uint8_t>(data);
  for (size_t at = kPage - reinterpret_cast<uintptr_t>(data) % kPage; at < bytes; at += kPage)
    load<uint8_t>(data + at);
}

}  // namespace

template <Ring R>
size_t reserve(R& ring, const NetFormat& format, std::span<const uint32_t> lengths,
               std::span<Place> places, BufferList& list, Lease& lease) {
  list.clear();
  ring.rewind();
  ring.read(list, lengths.size());
  const size_t most = format.mergeable ? kMaxMerged : 1;
  size_t taken = 0, handled = 0;
  for (; handled < lengths.size(); ++handled) {
    const uint64_t bytes = uint64_t{lengths[handled]} + format.headerSize;
    size_t count = 1;
    if (taken == list.size() || list[taken].length < bytes) [[unlikely]]
      count = buffersFor(ring, list, taken, bytes, most);
    if (count == 0) [[unlikely]] {
      if (list.exhausted() && taken > 0) break;
      const bool there = list.size() - taken >= most;
      places[handled] = {.room = there ? Place::Room::kTooShort : Place::Room::kFull};
      continue;
    }
    places[handled] = {static_cast<uint16_t>(taken), static_cast<uint16_t>(count),
                       Place::Room::kFound};
    taken += count;
  }
  lease = ring.take(list, taken);
  // Too many leases are open.
  if (lease.count != taken) [[unlikely]]
    std::fill_n(places.begin(), handled, Place{});
  return handled;
}

template size_t reserve(SplitRing&, const NetFormat&, std::span<const uint32_t>, std::span<Place>,
                        BufferList&, Lease&);
template size_t reserve(PackedRing&, const NetFormat&, std::span<const uint32_t>, std::span<Place>,
                        BufferList&, Lease&);

void touchPieces(const BufferList& list, const Place& place, uint32_t bytes) {
  for (size_t i = place.first; i < size_t{place.first} + place.count; ++i) {
    const Buffer& buffer = list[i];
    for (uint16_t piece = 0; piece < buffer.pieces && bytes > 0; ++piece) {
      const Segment segment = buffer.pieces == 1
                                  ? Segment{buffer.data, buffer.physical, buffer.length}
                                  : list.segments(buffer)[piece];
      const uint32_t part = std::min(bytes, segment.length);
      touchPages(segment.data, part);
      bytes -= part;
    }
  }
}

void write(BufferList& list, const Place& place, const NetFormat& format, const NetHeader& header,
           const Frame& frame) {
  Buffer& buffer = list[place.first];
  if (place.count != 1 || buffer.pieces != 1 || !frame.data) [[unlikely]] {
    writeInPieces(list, place, format.headerSize, header, frame);
    return;
  }
  if (format.headerSize == kHeaderSize)
    storeHeader<kHeaderSize>(buffer.data, header, place.count);
  else
    storeHeader<kLegacyHeaderSize>(buffer.data, header, place.count);
  std::byte* to = buffer.data + format.headerSize;
  storeHead(to, frame);
  if (const uint32_t rest = frame.restLength())
    copyBytes(to + frame.headBytes, frame.data + Frame::kHeadSize, rest);
  buffer.written = format.headerSize + frame.length;
}

}  // namespace vdpa::virtqueue
