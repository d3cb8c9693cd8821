// The counters of one poller for one port. Only that poller writes them; the control thread may
// read them at any time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace vdpa::vswitch {

enum class Drop : uint8_t {
  rxFull,
  spoofed,
  linkDown,
  tooLong,
  vlan,
  noMemory,
  runt,          // shorter than an Ethernet header
  chainTooLong,  // in more pieces than a frame may have
  rate,          // beyond its receiver's limit
  storm,         // to all ports, beyond its sender's limit for those
  badOffload,    // its header does not fit it
};
inline constexpr const char* kDropNames[] = {"rx_full", "spoofed",   "link_down",  "too_long",
                                             "vlan",    "no_memory", "runt",       "chain_too_long",
                                             "rate",    "storm",     "bad_offload"};
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
