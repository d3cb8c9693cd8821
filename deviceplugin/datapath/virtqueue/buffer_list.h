// Buffers that were read from a ring, in our memory: a burst. A list belongs to one thread, and is
// used again and again; it is too large for most stacks (40 KiB).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vdpa::virtqueue {

// A piece of a driver's memory, checked and mapped.
struct Segment {
  std::byte* data = nullptr;
  uint64_t physical = 0;  // its guest-physical address, for the log of dirty pages
  uint32_t length = 0;    // bytes
};

// A buffer that a driver made available: a descriptor, a chain of them or an indirect table (2.7.4,
// 2.8.5). All its pieces are read by the device, or all are written; the list's ring says which.
// Nothing in it refers to the map by which it was read.
struct Buffer {
  std::byte* data = nullptr;  // the first piece
  uint64_t physical = 0;
  uint32_t length = 0;   // bytes of all pieces
  uint32_t written = 0;  // bytes that the device wrote: the used length
  uint16_t id = 0;       // its name in the used element
  uint16_t entries = 1;  // of a packed ring that it takes
  uint16_t pieces = 1;   // 0 only if it has no bytes
  uint16_t segment = 0;  // of more than one piece: index of the first among the list's segments
};

// A position in a ring. Split: the free-running 16-bit index (2.7.6, 2.7.8), `wrap` is false.
// Packed: an entry and the wrap counter (2.8.1).
struct Position {
  uint16_t index = 0;
  bool wrap = false;

  bool operator==(const Position&) const = default;
};

// The used element of a buffer that the device gives back.
struct UsedElement {
  uint16_t id = 0;
  bool chained = false;  // of a packed ring: it took several entries
  uint32_t written = 0;
};

// Places among a ring's used elements, for the first `count` buffers of a list: theirs alone, until
// publish().
struct Lease {
  Position start, end;
  uint16_t count = 0;
  uint16_t entries = 0;  // of a packed ring, from start to end
  UsedElement first;     // of a packed ring: written by publish()
};

class BufferList {
 public:
  static constexpr size_t kMaxBuffers = 512;
  static constexpr size_t kMaxSegments = 1024;

  void clear() {
    size_ = 0;
    segmentCount_ = 0;
    steps_ = 0;
    exhausted_ = false;
  }
  size_t size() const { return size_; }
  bool full() const { return size_ == kMaxBuffers; }
  // A ring may have more buffers than the list has room for: read again once it is empty.
  bool exhausted() const { return exhausted_; }
  void setExhausted() { exhausted_ = true; }
  // Segments that may be added; at the same time, descriptors that may be looked at for them: most
  // have one, and those of no bytes have none.
  size_t segmentRoom() const { return kMaxSegments - steps_; }
  void addStep() { ++steps_; }

  Buffer& operator[](size_t index) { return buffers_[index]; }
  const Buffer& operator[](size_t index) const { return buffers_[index]; }

  // All pieces of a buffer that has more than one.
  std::span<const Segment> segments(const Buffer& buffer) const {
    return std::span(segments_).subspan(buffer.segment, buffer.pieces);
  }

  // There must be room.
  void push(const Buffer& buffer) { buffers_[size_++] = buffer; }
  uint16_t addSegment(const Segment& segment) {
    segments_[segmentCount_] = segment;
    return static_cast<uint16_t>(segmentCount_++);
  }
  // Forgets the segments from this one on.
  void dropSegments(size_t first) { segmentCount_ = first; }
  size_t segmentCount() const { return segmentCount_; }

 private:
  size_t size_ = 0;
  size_t segmentCount_ = 0;
  size_t steps_ = 0;
  bool exhausted_ = false;
  std::array<Buffer, kMaxBuffers> buffers_;
  std::array<Segment, kMaxSegments> segments_;
};

}  // namespace vdpa::virtqueue
