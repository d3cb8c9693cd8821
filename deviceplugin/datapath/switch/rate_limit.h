// How fast a port's pod may send: a token bucket that every poller of the port's queues shares. It
// shapes: while the bucket is in debt, the pollers leave the port's queues alone, and what the pod
// has put there waits for them.
//
// The bucket is one number, the time at which what was sent is paid for: later than now is debt,
// earlier is credit. What is taken is known only afterwards, so a burst may end in debt, and the
// port then waits for longer: the average is exact.
#pragma once

#include <atomic>
#include <cstdint>

namespace vdpa::vswitch {

// Times are a clock's cycles (`hz` a second) that all threads share and that doesn't go back. Bytes
// are a frame's, from its first address to the end of its payload: as the port's counters have
// them, without what is added on a wire.
class RateLimit {
 public:
  static constexpr unsigned kMaxMbits = 1000000;  // a second

  explicit RateLimit(uint64_t hz) : hz_(hz) {}

  // --- the control side, at any time. `mbits` a second, 1 to kMaxMbits; `maxFrame` in bytes.
  void set(unsigned mbits, unsigned maxFrame);

  // --- the pollers. `now`: the beginning of the poller's pass over its queues.
  // Whether the port may send. Once it may, all its queues may in this pass, or the first would
  // have it all.
  bool open(uint64_t now) {
    if (paidAt_.load(relaxed) <= now) {
      openedAt_.store(now, relaxed);
      return true;
    }
    return openedAt_.load(relaxed) == now;
  }
  // The frames to take from a queue at once.
  uint16_t burst() const { return burst_.load(relaxed); }
  void charge(uint64_t bytes, uint64_t now);
  // When the port may send again, if it may not.
  uint64_t paidAt() const { return paidAt_.load(relaxed); }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;

  const uint64_t hz_;
  std::atomic<uint64_t> paidAt_{0};
  std::atomic<uint64_t> openedAt_{0};  // the pass that was let through last
  std::atomic<uint64_t> cost_{0};      // of a byte, in fractions of a cycle
  std::atomic<uint16_t> burst_{1};
};

}  // namespace vdpa::vswitch
