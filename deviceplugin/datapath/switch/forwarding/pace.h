// How long to poll a queue that has become empty. Its next frames are expected after about the same
// gap as the last ones, so it is polled for a little longer than that; if the gap is long, waiting
// for the sender's notification costs less.
#pragma once

#include <algorithm>
#include <cstdint>

namespace vdpa::vswitch {

// Times are in cycles of the pollers' clock.
class Pace {
 public:
  explicit Pace(uint64_t hz) : shortGap_(hz / kShortGapsPerSecond), gap_(longest()) {}

  void found(uint64_t now) {
    // A single long gap, as when the scheduler takes the sender's processor, says little.
    const uint64_t gap = std::min({now - last_, 2 * gap_ + shortGap_ / kWeight, longest()});
    gap_ = gap_ - gap_ / kWeight + gap / kWeight;
    last_ = now;
  }
  // Whether it has been empty for too long to be polled any longer.
  bool quiet(uint64_t now) const { return now - last_ > patience(); }
  uint64_t gap() const { return gap_; }

 private:
  // With 12,500 bursts a second or more, a queue is polled all the time: the thread is then busy
  // more than half of the time anyway.
  static constexpr uint64_t kShortGapsPerSecond = 12500;  // 80 us
  // Of the mean, which follows a sender that speeds up within ten bursts.
  static constexpr uint64_t kWeight = 4;

  uint64_t longest() const { return 12 * shortGap_; }
  uint64_t patience() const { return gap_ < shortGap_ ? 2 * gap_ + shortGap_ / 16 : 0; }

  const uint64_t shortGap_;
  uint64_t gap_;       // the mean
  uint64_t last_ = 0;  // when there were frames
};

}  // namespace vdpa::vswitch
