// The pollers' clock: the processor's time-stamp counter, which all cores share and which runs at
// one rate, whatever theirs.
#pragma once

#include <x86intrin.h>

#include <cstdint>

namespace vdpa::vswitch {

inline uint64_t cycles() {
  return __rdtsc();
}

// Its rate, measured by the first call, which takes 10 ms; all others return the same, so that
// times in seconds that threads compute are those of one clock.
uint64_t measureCyclesPerSecond();

}  // namespace vdpa::vswitch
