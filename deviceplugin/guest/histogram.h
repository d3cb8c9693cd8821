// Counts values by size, each within 2 % of its own: quantiles of any number of latencies.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace vdpa::guest {

class Histogram {
 public:
  void add(uint64_t value) {
    ++counts_[bucketOf(value)];
    ++total_;
  }
  void clear() { *this = {}; }
  uint64_t total() const { return total_; }

  // The least value that `share` (0 to 1) of all are not above, up to the width of a bucket; 0 if
  // there is none.
  uint64_t quantile(double share) const {
    const auto wanted = static_cast<uint64_t>(share * static_cast<double>(total_));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (counts_[i] > 0 && seen > wanted) return valueOf(i);
    }
    for (size_t i = counts_.size(); i-- > 0;)
      if (counts_[i] > 0) return valueOf(i);
    return 0;
  }

 private:
  static constexpr unsigned kBits = 6;  // of a value that count, besides the leading one
  static constexpr size_t kSteps = size_t{1} << kBits;

  static size_t bucketOf(uint64_t value) {
    if (value < kSteps) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    return (size_t{shift} + 1) * kSteps + ((value >> shift) & (kSteps - 1));
  }
  static uint64_t valueOf(size_t bucket) {
    if (bucket < kSteps) return bucket;
    return (kSteps + bucket % kSteps) << (bucket / kSteps - 1);
  }

  std::array<uint64_t, (65 - kBits) * kSteps> counts_{};
  uint64_t total_ = 0;
};

}  // namespace vdpa::guest
