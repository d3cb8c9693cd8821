// A port's rate limit, with a fake clock.
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/port_settings.h"

namespace {

using vdpa::vswitch::RateLimit;

constexpr uint64_t kHz = 2'100'000'000;
constexpr unsigned kMaxFrame = 1514;

// The bytes that a pod with unlimited traffic sends in `seconds`, if the poller that waits for the
// limit comes `late` cycles after it opens.
uint64_t bytesIn(RateLimit& limit, uint64_t from, uint64_t seconds, unsigned frame, uint64_t late) {
  uint64_t bytes = 0;
  for (uint64_t now = from; now < from + seconds * kHz;) {
    if (limit.open(now)) {
      const uint64_t taken = uint64_t{limit.burst()} * frame;
      limit.charge(taken, now);
      bytes += taken;
      now += 2000;  // a burst takes at least this
    } else {
      now = limit.paidAt() + late;
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("the rate is exact whatever it is, for short frames and long ones") {
  const unsigned mbits = GENERATE(1u, 7u, 100u, 1000u, 10000u);
  const unsigned frame = GENERATE(64u, 1514u);
  const uint64_t late = GENERATE(uint64_t{0}, kHz / 20000, kHz / 200);  // 0, 50 us, 5 ms
  CAPTURE(mbits, frame, late);
  RateLimit limit(kHz);
  limit.set(mbits, kMaxFrame);
  bytesIn(limit, kHz, 1, frame, late);  // the initial credit is used up
  const uint64_t expected = 4 * uint64_t{mbits} * 1'000'000 / 8;
  const uint64_t sent = bytesIn(limit, 2 * kHz, 4, frame, late);
  CHECK(static_cast<double>(sent) / static_cast<double>(expected) == Approx(1).epsilon(0.01));
}

TEST_CASE("silence earns the burst, whatever the rate") {
  const unsigned mbits = GENERATE(1u, 100u, 10000u);
  const unsigned burst = GENERATE(1u, 64u, 4096u);
  CAPTURE(mbits, burst);
  RateLimit limit(kHz);
  limit.set(mbits, kMaxFrame, burst);
  uint64_t bytes = 0;
  for (uint64_t now = uint64_t{1} << 50; limit.open(now); ++now) {
    limit.charge(1000, now);
    bytes += 1000;
  }
  CHECK(bytes == Approx(burst * 1024).epsilon(0.01).margin(1000));
}

TEST_CASE("the largest burst at the lowest rate passes no more than it says") {
  constexpr uint64_t kFast = 5'000'000'000;
  RateLimit limit(kFast);
  limit.set(1, kMaxFrame, vdpa::kMaxBurst);
  const uint64_t now = uint64_t{1} << 60;
  uint64_t bytes = 0;
  for (uint64_t pass = now; limit.open(pass); ++pass) {
    limit.charge(1'000'000, pass);
    bytes += 1'000'000;
  }
  CHECK(bytes == Approx(uint64_t{vdpa::kMaxBurst} * 1024).epsilon(0.01));
}

TEST_CASE("the rate is exact with a burst too") {
  RateLimit limit(kHz);
  limit.set(100, kMaxFrame, 64);
  bytesIn(limit, kHz, 1, 1514, 0);
  const uint64_t sent = bytesIn(limit, 2 * kHz, 4, 1514, 0);
  CHECK(static_cast<double>(sent) == Approx(4 * 100e6 / 8).epsilon(0.01));
}

TEST_CASE("silence earns 10 ms and no more") {
  RateLimit limit(kHz);
  limit.set(100, kMaxFrame);
  uint64_t bytes = 0;
  // Each poll is another pass, a cycle later.
  for (uint64_t now = 3600 * kHz; limit.open(now); ++now) {
    limit.charge(100, now);
    bytes += 100;
  }
  CHECK(bytes == Approx(100'000'000 / 8 / 100).margin(200));
}

TEST_CASE("one burst of the longest frames is at most 2 ms of the rate, or one frame") {
  RateLimit limit(kHz);
  const auto burst = [&](unsigned mbits, unsigned frame) {
    limit.set(mbits, frame);
    return limit.burst();
  };
  CHECK(burst(1, kMaxFrame) == 1);
  CHECK(burst(100, kMaxFrame) == 16);
  CHECK(burst(100, 9014) == 2);
  CHECK(burst(10000, kMaxFrame) == 64);
  CHECK(burst(RateLimit::kMaxMbits, 82) == 64);
}

TEST_CASE("a frame beyond the credit closes the limit until it is paid for") {
  RateLimit limit(kHz);
  limit.set(1, kMaxFrame);
  REQUIRE(limit.open(kHz));
  limit.charge(kMaxFrame, kHz);
  CHECK_FALSE(limit.open(kHz));
  const uint64_t paid = limit.paidAt();
  CHECK_FALSE(limit.open(paid - 1));
  CHECK(limit.open(paid));
}

TEST_CASE("another rate holds from its setting on") {
  RateLimit limit(kHz);
  limit.set(1, kMaxFrame);
  bytesIn(limit, kHz, 1, 64, 0);
  limit.set(1000, kMaxFrame);
  CHECK(static_cast<double>(bytesIn(limit, 2 * kHz, 1, 64, 0)) / 125e6 == Approx(1).epsilon(0.02));
  limit.set(10, kMaxFrame);
  CHECK(static_cast<double>(bytesIn(limit, 3 * kHz, 1, 64, 0)) / 1.25e6 == Approx(1).epsilon(0.02));
}

TEST_CASE("pollers that share a limit share its rate") {
  RateLimit limit(kHz);
  limit.set(1000, kMaxFrame);
  constexpr unsigned kThreads = 3;
  std::atomic<uint64_t> clock{kHz};
  std::atomic<uint64_t> bytes{0};
  std::vector<std::thread> pollers;
  for (unsigned i = 0; i < kThreads; ++i)
    pollers.emplace_back([&] {
      for (uint64_t now; (now = clock.fetch_add(1000)) < 2 * kHz;)
        if (limit.open(now)) {
          const uint64_t taken = uint64_t{limit.burst()} * 64;
          limit.charge(taken, now);
          bytes += taken;
        }
    });
  for (auto& poller : pollers) poller.join();
  // 10 ms of initial credit are 1 %.
  CHECK(static_cast<double>(bytes) / 125e6 == Approx(1.01).epsilon(0.01));
}
