// Equal time for ports, how long an empty queue is polled, and which time is the poller's own.
#include <catch2/catch.hpp>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/pace.h"
#include "deviceplugin/datapath/switch/forwarding/receive_debt.h"

using namespace vdpa::vswitch;

namespace {

constexpr uint64_t kHz = 2'000'000'000;
constexpr uint64_t kMicrosecond = kHz / 1'000'000;

// The cycles that each of three ports gets of a second, if its bursts take so long. 0: it has none.
std::array<uint64_t, 3> shares(const std::array<uint64_t, 3>& bursts) {
  FairShare share(kHz);
  std::array<uint64_t, 3> got{};
  uint64_t time = 0;
  while (time < kHz) {
    share.beginPass();
    uint64_t owing = UINT64_MAX;
    bool served = false;
    for (uint16_t port = 0; port < 3; ++port) {
      if (bursts[port] == 0) continue;
      if (!share.mayServe(port)) {
        owing = std::min(owing, share.paidAt(port));
        continue;
      }
      share.charge(port, bursts[port]);
      got[port] += bursts[port];
      time += bursts[port];
      served = true;
    }
    if (!served) share.skipTo(owing);
  }
  return got;
}

}  // namespace

TEST_CASE("ports get equal time, whatever their bursts take") {
  const auto got = shares({3 * kMicrosecond, 100 * kMicrosecond, 5000 * kMicrosecond});
  for (const uint64_t cycles : got)
    CHECK(static_cast<double>(cycles) / (kHz / 3.0) == Approx(1).epsilon(0.02));
}

TEST_CASE("a port alone gets all of it, at once") {
  CHECK(shares({0, 700 * kMicrosecond, 0})[1] >= kHz);
}

TEST_CASE("a port that wants little gets that, and the others the rest") {
  FairShare share(kHz);
  share.beginPass();
  share.charge(1, 10 * kMicrosecond);
  for (int i = 0; i < 8; ++i) {
    share.beginPass();
    share.charge(2, kMicrosecond / 2);
    CHECK(share.mayServe(2));
    CHECK_FALSE(share.mayServe(1));
  }
  for (int i = 0; i < 2; ++i) share.beginPass();
  CHECK(share.mayServe(1));
}

TEST_CASE("a queue with short gaps is polled a little longer than they are, another not at all") {
  Pace pace(kHz);
  uint64_t now = kHz;
  const auto every = [&](uint64_t gap) {
    for (int i = 0; i < 50; ++i) pace.found(now += gap);
  };
  every(1000 * kMicrosecond);
  CHECK(pace.quiet(now + 1));
  every(50 * kMicrosecond);
  CHECK_FALSE(pace.quiet(now + 60 * kMicrosecond));
  CHECK(pace.quiet(now + 120 * kMicrosecond));
  every(2 * kMicrosecond);
  CHECK_FALSE(pace.quiet(now + 5 * kMicrosecond));
  CHECK(pace.quiet(now + 20 * kMicrosecond));
}

TEST_CASE("a sender that was silent for long is followed within ten bursts") {
  Pace pace(kHz);
  uint64_t now = 1000 * kHz;
  for (int i = 0; i < 12; ++i) pace.found(now += 40 * kMicrosecond);
  CHECK_FALSE(pace.quiet(now + 45 * kMicrosecond));
}

TEST_CASE("time that the scheduler gave to others is not the poller's") {
  const uint64_t hz = measureCyclesPerSecond();
  std::atomic<bool> stop = false;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
    std::thread rival([&] {
      while (!stop.load(std::memory_order_relaxed)) continue;
    });
    CpuTime time(hz);
    time.refresh(cycles());
    timespec before{}, now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    const uint64_t start = cycles();
    do ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while ((now.tv_sec - before.tv_sec) * 1'000'000'000 + now.tv_nsec - before.tv_nsec <
           40'000'000);
    const uint64_t worked = cycles();
    CHECK(worked - start > hz / 20);
    const uint64_t used = time.used(worked - start, worked);
    CHECK(used > hz / 50);
    CHECK(used < hz / 22);
    stop = true;
    rival.join();
  }).join();
}

TEST_CASE("time that the poller waited for what a pod gave it is used, but a stop is not") {
  const uint64_t hz = measureCyclesPerSecond();
  CpuTime time(hz);
  const auto waiting = [&](int milliseconds) {
    time.refresh(cycles());
    const uint64_t start = cycles();
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    const uint64_t end = cycles();
    return time.used(end - start, end);
  };
  CHECK(waiting(20) >= hz / 50);
  CHECK(waiting(300) < hz / 9);
}

TEST_CASE("a receiver costs a twentieth of a poller's time at most, but for 5 ms") {
  ReceiveDebt debt(kHz);
  CHECK(debt.usual(1, 0) == 2 * kMicrosecond);
  CHECK(debt.usual(64, 128) > 128 * kMicrosecond);
  uint64_t now = kHz, paid = 0;
  for (const uint64_t end = now + 10 * kHz; now < end; now += 10 * kMicrosecond) {
    if (debt.owes(1, now)) continue;
    debt.charge(1, 500 * kMicrosecond, now);
    paid += 500 * kMicrosecond;
  }
  CHECK(paid == Approx(10 * kHz / 20 + 5000 * kMicrosecond).epsilon(0.002));
  CHECK_FALSE(debt.owes(2, now));
  // Silence earns nothing beyond.
  now += 100 * kHz;
  debt.charge(1, 5001 * kMicrosecond, now);
  CHECK(debt.owes(1, now));
}

TEST_CASE("all threads have the same clock") {
  const uint64_t hz = measureCyclesPerSecond();
  uint64_t other = 0;
  std::thread([&] { other = measureCyclesPerSecond(); }).join();
  CHECK(other == hz);
  CHECK(hz > 100'000'000);
}
