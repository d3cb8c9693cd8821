// The limit of a switch with two ports on this machine: the memory that a frame passes through, and
// nothing else. One core plays both guests, as ring-generator does; the other copies each frame
// from the sender's buffer to the receiver's. Both touch the cache lines of two split virtqueues
// (virtio 1.2, 2.7) that driver and device have to touch, and only those: no check, no translation,
// no decision, no counter, no notification. So the difference to a switch is what the switch does
// besides, and what remains is the price of cache lines between these cores. Prints a line of JSON.
#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/bench/ring_generator/clock.h"

namespace {

using vdpa::bench::cycles;
using vdpa::virtqueue::Descriptor;
using vdpa::virtqueue::kHeaderSize;

constexpr size_t kLine = 64;
constexpr uint32_t kEntries = 256;
constexpr uint32_t kBurst = 32;
constexpr uint32_t kFcs = 4;

struct UsedElement {
  uint32_t id, length;
};

// The parts of a split ring that frames need. Indices count up and wrap at 65,536.
struct Ring {
  explicit Ring(size_t bytes)
      : stride((bytes + kLine - 1) / kLine * kLine + 2 * kLine), memory(stride * (kEntries + 1)) {
    for (uint32_t i = 0; i < kEntries; ++i) {
      const auto at = reinterpret_cast<uintptr_t>(buffer(i));
      descriptors[i] = {at, static_cast<uint32_t>(bytes), 0, 0};
    }
  }

  // As ring-generator's: the frame behind the header begins at a line.
  std::byte* buffer(uint32_t i) {
    const auto base = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (kLine - base % kLine) + i * stride + kLine - kHeaderSize;
  }

  const size_t stride;
  std::vector<std::byte> memory;
  alignas(kLine) Descriptor descriptors[kEntries];
  alignas(kLine) std::atomic<uint16_t> available{0};
  uint16_t heads[kEntries];
  alignas(kLine) std::atomic<uint16_t> used{0};
  UsedElement elements[kEntries];
};

void pin(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  vdpa::checked(::sched_setaffinity(0, sizeof set, &set), "cannot run on core {}", cpu);
}

// The device's side: from the sender's ring to the receiver's, until `stop`.
void move(Ring& from, Ring& to, const std::atomic<bool>& stop) {
  pin(1);
  uint16_t taken = 0, filled = 0;
  while (!stop.load(std::memory_order_relaxed)) {
    const auto sent = static_cast<uint16_t>(from.available.load(std::memory_order_acquire) - taken);
    const auto room = static_cast<uint16_t>(to.available.load(std::memory_order_acquire) - filled);
    const uint32_t count = std::min<uint32_t>({sent, room, 2 * kBurst});
    if (count == 0) continue;
    Descriptor source[2 * kBurst], target[2 * kBurst];
    for (uint32_t i = 0; i < count; ++i) {
      source[i] = from.descriptors[from.heads[(taken + i) % kEntries]];
      __builtin_prefetch(reinterpret_cast<const void*>(source[i].address + kHeaderSize));
    }
    for (uint32_t i = 0; i < count; ++i) {
      target[i] = to.descriptors[to.heads[(filled + i) % kEntries]];
      __builtin_prefetch(reinterpret_cast<const void*>(target[i].address + kHeaderSize), 1);
    }
    for (uint32_t i = 0; i < count; ++i) {
      std::memcpy(reinterpret_cast<std::byte*>(target[i].address) + kHeaderSize,
                  reinterpret_cast<const std::byte*>(source[i].address) + kHeaderSize,
                  source[i].length - kHeaderSize);
      to.elements[(filled + i) % kEntries] = {to.heads[(filled + i) % kEntries], source[i].length};
      from.elements[(taken + i) % kEntries] = {from.heads[(taken + i) % kEntries], 0};
    }
    to.used.store(filled = static_cast<uint16_t>(filled + count), std::memory_order_release);
    from.used.store(taken = static_cast<uint16_t>(taken + count), std::memory_order_release);
  }
}

// Both guests' side. Returns the frames that arrived.
uint64_t exchange(Ring& from, Ring& to, uint32_t length, uint64_t duration) {
  for (uint16_t i = 0; i < kEntries; ++i) to.heads[i] = from.heads[i] = i;
  to.available.store(kEntries, std::memory_order_release);
  uint16_t sent = 0, received = 0;
  uint64_t frames = 0, sum = 0;
  const uint64_t end = cycles() + duration;
  while (cycles() < end) {
    const uint16_t back = from.used.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < kBurst && static_cast<uint16_t>(sent - back) < kEntries; ++i) {
      const uint16_t slot = sent % kEntries;
      std::byte* frame = from.buffer(slot) + kHeaderSize;
      std::memcpy(frame + 42, &frames, sizeof frames);
      from.descriptors[slot].length = static_cast<uint32_t>(kHeaderSize) + length;
      from.heads[slot] = slot;
      ++sent;
    }
    from.available.store(sent, std::memory_order_release);
    const uint16_t there = to.used.load(std::memory_order_acquire);
    for (; received != there; ++received, ++frames) {
      const UsedElement element = to.elements[received % kEntries];
      uint64_t stamp;
      std::memcpy(&stamp, to.buffer(element.id) + kHeaderSize + 42, sizeof stamp);
      sum += stamp;
      to.heads[received % kEntries] = static_cast<uint16_t>(element.id);
    }
    to.available.store(static_cast<uint16_t>(received + kEntries), std::memory_order_release);
  }
  asm volatile("" : : "r"(sum));
  return frames;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3)
      throw std::runtime_error(
          "usage: exchange-timer BYTES SECONDS; bytes of a frame with its FCS");
    const auto length = static_cast<uint32_t>(std::stoul(argv[1])) - kFcs;
    const double seconds = std::stod(argv[2]);
    pin(0);
    const auto from = std::make_unique<Ring>(kHeaderSize + length);
    const auto to = std::make_unique<Ring>(kHeaderSize + length);
    std::atomic<bool> stop = false;
    std::thread other([&] { move(*from, *to, stop); });
    const double hz = vdpa::bench::measureFrequency();
    const uint64_t frames = exchange(*from, *to, length, static_cast<uint64_t>(seconds * hz));
    stop = true;
    other.join();
    fmt::print("{{\"pps\": {:.0f}}}\n", static_cast<double>(frames) / seconds);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "exchange-timer: {}\n", error.what());
    return 1;
  }
}
