// The processor's cycle counter.
#pragma once

#include <x86intrin.h>

#include <chrono>
#include <cstdint>
#include <thread>

namespace vdpa::bench {

inline uint64_t cycles() {
  return __rdtsc();
}

// Cycles per second; takes 50 ms.
inline double measureFrequency() {
  using Clock = std::chrono::steady_clock;
  const auto from = Clock::now();
  const uint64_t before = cycles();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const uint64_t after = cycles();
  const std::chrono::duration<double> took = Clock::now() - from;
  return static_cast<double>(after - before) / took.count();
}

}  // namespace vdpa::bench
