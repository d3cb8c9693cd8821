// Limits how fast a port's pod may send or receive: a token bucket that all pollers share. Sending
// is shaped: while the bucket is in debt, the pollers skip the port's queues, and the pod's frames
// wait there. Receiving, and sending to all, is policed: what comes too early is dropped.
//
// The bucket is one number, the time at which the sent frames are paid for: later than now is debt,
// earlier is credit. The size of a burst is known only afterwards, so it may end in debt, and the
// port then waits longer: the average is exact.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/port_settings.h"

namespace vdpa::vswitch {

// Times are cycles of a monotonic clock (`hz` a second) that all threads share. Bytes are those of
// a frame from its first address to the end of its payload, as in the port's counters, without the
// overhead of a wire.
class RateLimit {
 public:
  static constexpr unsigned kMaxMbits = kMaxRate;  // a second

  explicit RateLimit(uint64_t hz) : hz_(hz) {}

  // --- the control side, at any time.
  // `mbits` a second, 1 to kMaxMbits; `maxFrame` in bytes. `burst`: KiB that may pass at once after
  // a silence; 0: those of 10 ms.
  void set(unsigned mbits, unsigned maxFrame, unsigned burst = 0);
  // Frames a second, > 0, instead of bytes; those of 100 ms at once. For police().
  void setFrames(unsigned perSecond);

  // --- the pollers. `now`: the beginning of the poller's pass over its queues.
  // Whether the port may send.
  bool open(uint64_t now) const { return paidAt_.load(relaxed) <= now; }
  // How many frames to take from a queue at once.
  uint16_t burst() const { return burst_.load(relaxed); }
  void charge(uint64_t bytes, uint64_t now);
  // Whether so many bytes (or frames) may pass now. If so, they are charged: several pollers
  // together pass no more than one. The last frame may exceed the credit.
  bool police(uint64_t units, uint64_t now);
  // When the port may send again, if it may not.
  uint64_t paidAt() const { return paidAt_.load(relaxed); }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;

  uint64_t price(uint64_t units) const;
  // When a bucket that is full now would have been paid for.
  uint64_t fullAt(uint64_t now) const;

  const uint64_t hz_;
  std::atomic<uint64_t> paidAt_{0};
  std::atomic<uint64_t> cost_{0};    // of a byte (or frame), in fractions of a cycle
  std::atomic<uint64_t> credit_{0};  // cycles
  std::atomic<uint16_t> burst_{1};
};

}  // namespace vdpa::vswitch
