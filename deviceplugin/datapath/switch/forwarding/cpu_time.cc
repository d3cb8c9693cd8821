#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"

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

void CpuTime::mark(uint64_t now) {
  markedAt_ = now;
  threadTimeThen_ = threadTime();
}

uint64_t CpuTime::usedOf(uint64_t span, uint64_t now) {
  const uint64_t since = now - markedAt_, before = threadTimeThen_;
  mark(now);
  const uint64_t ran = threadTimeThen_ - before;
  const uint64_t away = since > ran ? since - ran : 0;
  return span - std::min(span, away);
}

}  // namespace vdpa::vswitch
