#include "deviceplugin/datapath/virtqueue/frame.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/segments.h"

namespace vdpa::virtqueue {
namespace {

// Up to 64 bytes, by copies of a fixed size, which the compiler has in registers. Bytes that two of
// them have are read twice, and are what the second read.
void snapshotHead(std::byte* to, const std::byte* from, uint32_t length) {
  if (length >= 64) {
    snapshot(to, from, 64);
  } else if (length >= 32) {
    snapshot(to, from, 32);
    snapshot(to + length - 32, from + length - 32, 32);
  } else {
    snapshot(to, from, length);
  }
}

// Copies `bytes` from where the walk is.
void copyOut(SegmentWalk& from, std::byte* to, uint32_t bytes) {
  while (bytes > 0) {
    const uint32_t part = std::min(bytes, from.length());
    snapshot(to, from.data(), part);
    from.advance(part);
    to += part;
    bytes -= part;
  }
}

void copyBehindHead(const Frame& frame, std::byte* to, uint32_t bytes) {
  if (bytes == 0) return;
  if (frame.data) {
    snapshot(to, frame.data + Frame::kHeadSize, bytes);
    return;
  }
  SegmentWalk walk(*frame.list, *frame.buffer);
  walk.advance(frame.headerSize + Frame::kHeadSize);
  copyOut(walk, to, bytes);
}

}  // namespace

bool readFrame(const BufferList& list, const Buffer& buffer, uint32_t headerSize, Frame& frame) {
  if (buffer.length <= headerSize) [[unlikely]]
    return false;
  frame.length = buffer.length - headerSize;
  frame.headBytes = std::min(frame.length, Frame::kHeadSize);
  frame.headerSize = headerSize;
  frame.list = &list;
  frame.buffer = &buffer;
  if (buffer.pieces == 1) [[likely]] {
    frame.data = buffer.data + headerSize;
    snapshotHead(frame.head.data(), frame.data, frame.headLength());
    return true;
  }
  frame.data = nullptr;
  SegmentWalk walk(list, buffer);
  walk.advance(headerSize);
  // Most drivers that chain put the header into a descriptor of its own.
  if (walk.length() == frame.length) frame.data = walk.data();
  copyOut(walk, frame.head.data(), frame.headLength());
  return true;
}

NetHeader readHeader(const BufferList& list, const Buffer& buffer, uint32_t headerSize) {
  std::array<std::byte, sizeof(NetHeader)> bytes{};
  if (buffer.pieces == 1 && headerSize == kHeaderSize) [[likely]] {
    snapshot(bytes.data(), buffer.data, kHeaderSize);
  } else {
    SegmentWalk walk(list, buffer);
    copyOut(walk, bytes.data(), std::min<uint32_t>(headerSize, sizeof(NetHeader)));
  }
  NetHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

Frame frameOf(const std::byte* data, uint32_t length) {
  Frame frame{};
  frame.length = length;
  frame.headBytes = std::min(length, Frame::kHeadSize);
  frame.data = data;
  std::memcpy(frame.head.data(), data, frame.headLength());
  return frame;
}

void copyFrame(const Frame& frame, std::byte* to) {
  const uint32_t head = frame.headLength();
  copyBytes(to, frame.head.data(), head);
  copyBehindHead(frame, to + head, frame.length - head);
}

void copyFront(const Frame& frame, std::byte* to, uint32_t bytes) {
  const uint32_t head = std::min(frame.headLength(), bytes);
  copyBytes(to, frame.head.data(), head);
  copyBehindHead(frame, to + head, bytes - head);
}

}  // namespace vdpa::virtqueue
