#include "deviceplugin/datapath/switch/forwarding/cycles.h"

#include <time.h>

#include <chrono>
#include <cstdint>
#include <thread>

namespace vdpa::vswitch {
namespace {

struct Moment {
  uint64_t cycles;
  int64_t nanoseconds;
};

// The clock is read between two readings of the counter; the closest of several is taken, since the
// thread may be interrupted in between.
Moment now() {
  Moment best{};
  uint64_t shortest = UINT64_MAX;
  for (int i = 0; i < 8; ++i) {
    timespec time{};
    const uint64_t before = cycles();
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    const uint64_t took = cycles() - before;
    if (took >= shortest) continue;
    shortest = took;
    best = {before + took / 2, time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec};
  }
  return best;
}

uint64_t measure() {
  const Moment start = now();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const Moment end = now();
  return static_cast<uint64_t>(static_cast<double>(end.cycles - start.cycles) * 1e9 /
                               static_cast<double>(end.nanoseconds - start.nanoseconds));
}

}  // namespace

uint64_t measureCyclesPerSecond() {
  static const uint64_t measured = measure();
  return measured;
}

}  // namespace vdpa::vswitch
