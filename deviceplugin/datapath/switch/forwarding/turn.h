// How many frames of a source are forwarded at once: as many as take 100 us, by its latest frames.
// One frame to all of 4,096 ports takes longer than 64 to one of them, and the other sources wait
// meanwhile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/burst.h"

namespace vdpa::vswitch {

// Times are in cycles of the pollers' clock.
class Turn {
 public:
  explicit Turn(uint64_t hz) : longest_(hz / kTurnsPerSecond) {}

  size_t frames() const {
    if (frameCost_ * Burst::kMaxFrames <= longest_) [[likely]]
      return Burst::kMaxFrames;
    return std::max<size_t>(1, longest_ / frameCost_);
  }
  void took(uint64_t cycles, size_t frames) {
    frameCost_ = frameCost_ - frameCost_ / kWeight + cycles / frames / kWeight;
  }

 private:
  static constexpr uint64_t kTurnsPerSecond = 10000;
  static constexpr uint64_t kWeight = 4;  // of the mean

  const uint64_t longest_;
  uint64_t frameCost_ = 0;  // the mean
};

}  // namespace vdpa::vswitch
