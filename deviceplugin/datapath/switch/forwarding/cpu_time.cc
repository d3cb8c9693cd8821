#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

namespace vdpa::vswitch {

uint64_t CpuTime::threadTime() const {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * hz_ +
         static_cast<uint64_t>(static_cast<double>(time.tv_nsec) * static_cast<double>(hz_) * 1e-9);
}

// How often the thread has given up its processor to wait for something (getrusage(2)).
long CpuTime::waits() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

void CpuTime::mark(uint64_t now) {
  markedAt_ = now;
  threadTimeThen_ = threadTime();
  waitsThen_ = waits();
}

uint64_t CpuTime::usedOf(uint64_t span, uint64_t now) {
  const uint64_t since = now - markedAt_, before = threadTimeThen_;
  const long waitsBefore = waitsThen_;
  mark(now);
  const uint64_t ran = threadTimeThen_ - before;
  const uint64_t away = std::min(span, since > ran ? since - ran : 0);
  const uint64_t waited = waitsThen_ == waitsBefore ? 0 : std::min(away, hz_ / 1000 * kLongestWait);
  return span - away + waited;
}

}  // namespace vdpa::vswitch
