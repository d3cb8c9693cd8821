// Separates the time that a poller used from the time that the scheduler gave to others: the
// pollers' clock counts both. Time in which the poller itself waited is used, since only what pods
// gave it makes it wait, such as a page of a file that is being punched. But a stopped process
// (SIGSTOP, a freezer) looks the same, so a wait counts at most kLongestWait.
#pragma once

#include <cstdint>

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only. Times are in cycles of the pollers' clock.
class CpuTime {
 public:
  static constexpr int kLongestWait = 100;  // ms

  explicit CpuTime(uint64_t hz) : hz_(hz) {}

  // Call regularly: used() subtracts all time that the scheduler took since the last mark. Makes a
  // system call at most every 10 ms.
  void refresh(uint64_t now) {
    if (now - markedAt_ > hz_ / kMarksPerSecond) [[unlikely]]
      mark(now);
  }
  // Call after the thread has slept, or the time asleep would be taken off the next span.
  void restart(uint64_t now) { mark(now); }
  // How long the thread ran or waited in a span that has just ended. Short spans count whole.
  uint64_t used(uint64_t span, uint64_t now) {
    return span < hz_ / kShortSpansPerSecond ? span : usedOf(span, now);
  }

 private:
  static constexpr uint64_t kMarksPerSecond = 100;
  static constexpr uint64_t kShortSpansPerSecond = 20000;  // 50 us

  void mark(uint64_t now);
  uint64_t usedOf(uint64_t span, uint64_t now);
  uint64_t threadTime() const;
  static long waits();

  const uint64_t hz_;
  uint64_t markedAt_ = 0;
  uint64_t threadTimeThen_ = 0;
  long waitsThen_ = 0;
};

}  // namespace vdpa::vswitch
