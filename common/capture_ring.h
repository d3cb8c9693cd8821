// Frames of a captured port on their way from vdpa-switch's pollers to vdpactl: one ring for each
// poller, in memory that vdpactl makes, allocates and passes to the switch (control.proto,
// Capture).
//
//   ring   a page with the positions, then kCaptureRing bytes of records, mapped twice in a row so
//          that each record is in one piece
//   record CaptureRecord, the frame's first bytes, and up to 63 bytes so that the next one begins
//          with a cache line
//
// A poller never waits for the reader: a frame for which there is no room is counted in the ring.
// Each side keeps its own position, and checks or masks the other's: vdpactl does not trust a
// switch, which reads what pods write, and the switch stays within the ring whatever is in it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/unique_fd.h"

namespace vdpa {

inline constexpr size_t kCaptureRing = 8 << 20;    // bytes
inline constexpr uint32_t kMaxSnapLength = 65535;  // bytes of a frame

struct CaptureRecord {
  uint64_t time = 0;      // the processor's time-stamp counter
  uint32_t length = 0;    // bytes of the frame
  uint32_t captured = 0;  // bytes of it that follow
  uint8_t received = 0;   // 1: by the pod, or on its way to it; 0: the pod has sent it
  uint8_t drop = 0;       // 0: forwarded; else the drop reason's place in Capturing, from 1
};
static_assert(sizeof(CaptureRecord) == 24);

// In shared memory.
struct alignas(4096) CapturePositions {
  std::atomic<uint64_t> written;           // bytes, free-running; the poller's, as the next one
  std::atomic<uint64_t> dropped;           // frames for which there was no room
  alignas(64) std::atomic<uint64_t> read;  // bytes; vdpactl's
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// The mapping of one ring.
class CaptureMemory {
 public:
  // Memory for this many rings, which the kernel has charged to this process, so that no write can
  // fail later. Throws std::system_error.
  static UniqueFd make(unsigned rings);
  // Throws std::runtime_error if `fd` is not the memory of `rings` rings, or could be made smaller:
  // its user would be killed.
  static void check(int fd, unsigned rings);

  // Of a descriptor that was checked, or made here, which may be closed then. Throws
  // std::system_error.
  CaptureMemory(int fd, unsigned ring);
  ~CaptureMemory();
  CaptureMemory(const CaptureMemory&) = delete;
  CaptureMemory& operator=(const CaptureMemory&) = delete;

  CapturePositions& positions() const { return *reinterpret_cast<CapturePositions*>(base_); }
  // Twice kCaptureRing bytes: the same ones.
  std::byte* data() const { return base_ + sizeof(CapturePositions); }

 private:
  std::byte* base_;
};

inline uint64_t captureSize(uint32_t bytes) {
  return (sizeof(CaptureRecord) + uint64_t{bytes} + 63) / 64 * 64;
}

// A poller's side, for its thread alone.
class CaptureWriter {
 public:
  CaptureWriter(int fd, unsigned ring) : memory_(fd, ring) {}

  // Where to write a record with `bytes` bytes of a frame, at most kMaxSnapLength. Null: there is
  // no room; counted. Valid until publish().
  std::byte* reserve(uint32_t bytes) {
    const uint64_t end = position_ + captureSize(bytes);
    if (end - read_ > kCaptureRing) [[unlikely]] {
      read_ = memory_.positions().read.load(std::memory_order_acquire);
      if (end - read_ > kCaptureRing) {
        memory_.positions().dropped.store(++dropped_, std::memory_order_relaxed);
        return nullptr;
      }
    }
    std::byte* at = memory_.data() + position_ % kCaptureRing;
    position_ = end;
    return at;
  }
  // Lets the reader see all reserved records, which must be complete.
  void publish() { memory_.positions().written.store(position_, std::memory_order_release); }

 private:
  const CaptureMemory memory_;
  uint64_t position_ = 0;
  uint64_t read_ = 0;  // the reader's position, as last seen
  uint64_t dropped_ = 0;
};

// vdpactl's side.
class CaptureReader {
 public:
  CaptureReader(int fd, unsigned ring) : memory_(fd, ring) {}

  // The next record; null: there is none yet. Valid until next() or release(). Throws
  // std::runtime_error if the ring is not as a poller writes it.
  const CaptureRecord* peek();
  // The bytes of that record.
  const std::byte* bytes() const { return at() + sizeof(CaptureRecord); }
  void next() {
    position_ += captureSize(record_.captured);
    peeked_ = false;
  }
  // Makes room for the poller: of all records before the next one.
  void release() { memory_.positions().read.store(position_, std::memory_order_release); }
  // Frames that did not fit, so far.
  uint64_t dropped() const { return memory_.positions().dropped.load(std::memory_order_relaxed); }

 private:
  const std::byte* at() const { return memory_.data() + position_ % kCaptureRing; }

  const CaptureMemory memory_;
  uint64_t position_ = 0;
  uint64_t written_ = 0;  // the poller's position, as last seen
  bool peeked_ = false;
  CaptureRecord record_;  // a copy: what is checked is what is used
};

}  // namespace vdpa
