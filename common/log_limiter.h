// Keeps a pod from filling the node's logs: a handful of lines at once, then one a second.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

namespace vdpa {

class LogLimiter {
 public:
  using Clock = std::chrono::steady_clock;

  // Whether a line may be written now; if so, how many were suppressed before it.
  std::optional<unsigned> admit(Clock::time_point now = Clock::now()) {
    const std::chrono::duration<double> passed = now - last_;
    tokens_ = std::min(kBurst, tokens_ + passed.count());
    last_ = now;
    if (tokens_ < 1) {
      ++suppressed_;
      return std::nullopt;
    }
    tokens_ -= 1;
    const unsigned suppressed = suppressed_;
    suppressed_ = 0;
    return suppressed;
  }

 private:
  static constexpr double kBurst = 5;
  double tokens_ = kBurst;
  Clock::time_point last_{};
  unsigned suppressed_ = 0;
};

}  // namespace vdpa
