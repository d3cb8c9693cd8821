// The counters of one poller for one port. Only that poller writes them; the control thread may
// read them at any time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace vdpa::vswitch {

// A runt is shorter than an Ethernet header.
enum class Drop : uint8_t { rxFull, spoofed, linkDown, tooLong, vlan, noMemory, runt };
inline constexpr const char* kDropNames[] = {"rx_full", "spoofed",   "link_down", "too_long",
                                             "vlan",    "no_memory", "runt"};
inline constexpr size_t kDrops = std::size(kDropNames);

// A counter with one writer: adding needs no locked instruction.
class Counter {
 public:
  void add(uint64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// From the pod's view: rx is received by the pod.
struct alignas(64) Counters {
  Counter rxPackets, rxBytes, txPackets, txBytes;
  std::array<Counter, kDrops> drops;

  void drop(Drop reason, uint64_t n) { drops[static_cast<size_t>(reason)].add(n); }
};

}  // namespace vdpa::vswitch
