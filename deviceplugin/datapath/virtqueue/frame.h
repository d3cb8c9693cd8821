// A packet on its way from one driver's buffer to others': its head is a copy in our memory, the
// rest is still in its sender's. Decisions are made on the head, and the head is what arrives: the
// sender cannot change it in between.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::virtqueue {

struct Frame {
  static constexpr uint32_t kHeadSize = 64;  // bytes that are copied
  // Bytes that may be inserted into the head, such as a VLAN tag.
  static constexpr uint32_t kHeadRoom = 4;

  // The first `headBytes` of the packet. The sender's bytes from kHeadSize on follow them. So bytes
  // can be inserted into the head or removed from it without moving the rest.
  alignas(64) std::array<std::byte, kHeadSize + kHeadRoom> head;
  uint32_t length = 0;  // bytes of the packet, without the header
  // The sender's packet in one piece; null: in pieces, those of `buffer` after `headerSize` bytes.
  const std::byte* data = nullptr;
  const BufferList* list = nullptr;
  const Buffer* buffer = nullptr;
  uint32_t headerSize = 0;
  uint32_t headBytes = 0;

  uint32_t headLength() const { return headBytes; }
  uint32_t restLength() const { return length - headBytes; }  // bytes behind the head
};

// The packet in a buffer of a transmit queue, behind a header of `headerSize` bytes. False: there
// is nothing behind it. The frame refers to the list.
bool readFrame(const BufferList& list, const Buffer& buffer, uint32_t headerSize, Frame& frame);

// The header in front of it, copied; nothing in it is checked. `buffer` is that of a frame.
NetHeader readHeader(const BufferList& list, const Buffer& buffer, uint32_t headerSize);

// A packet in our own memory, which is borrowed.
Frame frameOf(const std::byte* data, uint32_t length);

// Copies the whole frame to memory of ours, or to a driver's buffer in one piece.
void copyFrame(const Frame& frame, std::byte* to);

// Copies its first `bytes` bytes, at most `length`, to memory of ours: a snapshot to decide on.
// Beyond the head, another call may see other bytes.
void copyFront(const Frame& frame, std::byte* to, uint32_t bytes);

// Prefetches the cache lines behind the head, before the frame is copied.
inline void prefetchFrame(const Frame& frame) {
  constexpr uint32_t kLine = 64, kMost = 24 * kLine;  // as much as a processor has under way
  if (!frame.data) return;
  for (uint32_t at = Frame::kHeadSize; at < frame.length && at < kMost; at += kLine)
    __builtin_prefetch(frame.data + at, 0);
}

}  // namespace vdpa::virtqueue
