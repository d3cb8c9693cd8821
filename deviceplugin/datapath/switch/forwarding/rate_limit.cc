#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"

#include <algorithm>
#include <cstdint>

namespace vdpa::vswitch {
namespace {

constexpr unsigned kFraction = 20;  // bits; 64 frames of 64 KiB at 1 Mbit/s leave room above
// The credit of a port that was silent, or whose poller was late: the limit's bytes in this time.
// The scheduler of a busy node is late by a few milliseconds.
constexpr uint64_t kCreditPerSecond = 100;  // 10 ms
constexpr uint64_t kFrameCreditPerSecond =
    10;  // 100 ms: a pod starts with some ARP and IPv6 frames
// The debt that a burst of frames of maximum length may leave, unless a single one exceeds it.
constexpr uint64_t kDebtPerSecond = 500;  // 2 ms
constexpr uint64_t kMaxBurst = 64;        // frames; the forwarder's

}  // namespace

void RateLimit::set(unsigned mbits, unsigned maxFrame, unsigned burst) {
  const uint64_t bytesPerSecond = uint64_t{mbits} * 1000000 / 8;
  cost_.store((hz_ << kFraction) / bytesPerSecond, relaxed);
  credit_.store(burst == 0 ? hz_ / kCreditPerSecond : price(uint64_t{burst} * 1024), relaxed);
  burst_.store(static_cast<uint16_t>(
                   std::clamp<uint64_t>(bytesPerSecond / kDebtPerSecond / maxFrame, 1, kMaxBurst)),
               relaxed);
}

void RateLimit::setFrames(unsigned perSecond) {
  cost_.store((hz_ << kFraction) / perSecond, relaxed);
  credit_.store(hz_ / kFrameCreditPerSecond, relaxed);
}

uint64_t RateLimit::price(uint64_t units) const {
  // 1 GiB of credit at 1 Mbit/s takes more than 64 bits.
  __extension__ using Product = unsigned __int128;
  return static_cast<uint64_t>((Product{units} * cost_.load(relaxed)) >> kFraction);
}

uint64_t RateLimit::fullAt(uint64_t now) const {
  const uint64_t credit = credit_.load(relaxed);
  return now > credit ? now - credit : 0;
}

void RateLimit::charge(uint64_t bytes, uint64_t now) {
  const uint64_t cost = price(bytes);
  uint64_t before = paidAt_.load(relaxed);
  uint64_t after;
  do after = std::max(before, fullAt(now)) + cost;
  while (!paidAt_.compare_exchange_weak(before, after, relaxed));
}

bool RateLimit::police(uint64_t units, uint64_t now) {
  const uint64_t cost = price(units);
  uint64_t before = paidAt_.load(relaxed);
  uint64_t after;
  do {
    if (before > now) return false;
    after = std::max(before, fullAt(now)) + cost;
  } while (!paidAt_.compare_exchange_weak(before, after, relaxed));
  return true;
}

}  // namespace vdpa::vswitch
