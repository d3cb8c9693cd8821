#include "deviceplugin/datapath/switch/rate_limit.h"

#include <algorithm>
#include <cstdint>

namespace vdpa::vswitch {
namespace {

constexpr unsigned kFraction = 20;  // bits; 64 frames of 9 KiB at 1 Mbit/s leave room above
// The credit of a port that was silent, or whose poller was late: the limit's bytes in this time.
// The scheduler of a busy node is late by a few milliseconds.
constexpr uint64_t kCreditPerSecond = 100;  // 10 ms
// The debt that a burst of frames of maximum length may leave, unless a single one exceeds it.
constexpr uint64_t kDebtPerSecond = 500;  // 2 ms
constexpr uint64_t kMaxBurst = 64;        // frames; the forwarder's

}  // namespace

void RateLimit::set(unsigned mbits, unsigned maxFrame) {
  const uint64_t bytesPerSecond = uint64_t{mbits} * 1000000 / 8;
  cost_.store((hz_ << kFraction) / bytesPerSecond, relaxed);
  burst_.store(static_cast<uint16_t>(
                   std::clamp<uint64_t>(bytesPerSecond / kDebtPerSecond / maxFrame, 1, kMaxBurst)),
               relaxed);
}

void RateLimit::charge(uint64_t bytes, uint64_t now) {
  const uint64_t price = (bytes * cost_.load(relaxed)) >> kFraction;
  const uint64_t credit = hz_ / kCreditPerSecond;
  uint64_t before = paidAt_.load(relaxed);
  uint64_t after;
  do after = std::max(before, now > credit ? now - credit : 0) + price;
  while (!paidAt_.compare_exchange_weak(before, after, relaxed));
}

}  // namespace vdpa::vswitch
