// Measures two cores of this machine, without any switch: how long a cache line takes from one to
// the other, and how fast bytes are copied. Prints a line of JSON.
#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "tests/bench/ring_generator/clock.h"

namespace {

using vdpa::bench::cycles;

constexpr size_t kLine = 64;
constexpr size_t kStride = 2048;  // from one frame to the next
constexpr size_t kFrames = 256;   // of a ring

void pin(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  vdpa::checked(::sched_setaffinity(0, sizeof set, &set), "cannot run on core {}", cpu);
}

// The median: the machine may be busy.
double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Runs `work` on core 1 while the caller is on core 0. They take turns: `turn` counts up, and is
// even when the caller is on.
struct Turns {
  alignas(kLine) std::atomic<uint64_t> turn{0};
  void wait(uint64_t until) const {
    while (turn.load(std::memory_order_acquire) != until) continue;
  }
  void next() { turn.fetch_add(1, std::memory_order_release); }
};

// Cycles for one way of a cache line.
double lineCycles(unsigned rounds) {
  Turns turns;
  std::jthread other([&] {
    pin(1);
    for (unsigned i = 0; i < rounds; ++i) {
      turns.wait(2 * uint64_t{i} + 1);
      turns.next();
    }
  });
  std::vector<double> taken;
  for (unsigned i = 0; i < rounds; ++i) {
    const uint64_t from = cycles();
    turns.next();
    turns.wait(2 * uint64_t{i} + 2);
    taken.push_back(static_cast<double>(cycles() - from) / 2);
  }
  return median(taken);
}

// Cycles for the copy of a frame that the other core has written, one of a ring's.
double copyCycles(size_t length, unsigned rounds) {
  Turns turns;
  std::vector<std::byte> source(kFrames * kStride), target(kFrames * kStride);
  std::jthread other([&] {
    pin(1);
    for (unsigned i = 0; i < rounds; ++i) {
      turns.wait(2 * uint64_t{i} + 1);
      std::memset(source.data(), static_cast<int>(i), source.size());
      turns.next();
    }
  });
  std::vector<double> taken;
  for (unsigned i = 0; i < rounds; ++i) {
    turns.next();
    turns.wait(2 * uint64_t{i} + 2);
    const uint64_t from = cycles();
    for (size_t frame = 0; frame < kFrames; ++frame)
      std::memcpy(target.data() + frame * kStride, source.data() + frame * kStride, length);
    taken.push_back(static_cast<double>(cycles() - from) / kFrames);
  }
  return median(taken);
}

// Bytes copied per cycle, within `bytes` of memory.
double bytesPerCycle(size_t bytes, unsigned rounds) {
  std::vector<std::byte> source(bytes / 2), target(bytes / 2);
  std::vector<double> rates;
  for (unsigned i = 0; i < rounds; ++i) {
    const uint64_t from = cycles();
    std::memcpy(target.data(), source.data(), source.size());
    rates.push_back(static_cast<double>(source.size()) / static_cast<double>(cycles() - from));
    asm volatile("" : : "r"(target.data()) : "memory");
  }
  return median(rates);
}

}  // namespace

int main() {
  try {
    pin(0);
    const double hz = vdpa::bench::measureFrequency(), ns = 1e9 / hz;
    fmt::print(
        "{{\"line_ns\": {:.1f}, \"copy_64_ns\": {:.2f}, \"copy_1518_ns\": {:.1f}, "
        "\"cached_gb_per_second\": {:.2f}, \"memory_gb_per_second\": {:.2f}}}\n",
        lineCycles(20000) * ns, copyCycles(64, 300) * ns, copyCycles(1518, 300) * ns,
        bytesPerCycle(256 << 10, 3000) * hz / 1e9, bytesPerCycle(256 << 20, 5) * hz / 1e9);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "machine-timer: {}\n", error.what());
    return 1;
  }
}
