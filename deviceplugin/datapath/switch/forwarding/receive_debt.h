// What receivers owe a poller. A pod decides how long its ring of buffers takes to be read: with
// pieces of a few bytes in pages that it takes out of its memory again and again, a hundred times
// as long as usual. What is beyond the usual is not the sender's to pay. The pod pays: at most a
// twentieth of a poller's time, or it gets nothing until it is that again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only. Times are in cycles of the pollers' clock; `now`: the
// beginning of a pass.
class ReceiveDebt {
 public:
  static constexpr uint64_t kShare = 20;  // one of so many parts is a receiver's

  explicit ReceiveDebt(uint64_t hz)
      : hz_(hz), credit_(kShare * (hz / kCreditsPerSecond)), paidAt_(MacTable::kMaxPorts) {}

  // The most that it usually takes to find room for so many frames in so many buffers.
  uint64_t usual(uint64_t frames, uint64_t buffers) const {
    return frames * hz_ / kFramesPerSecond + buffers * hz_ / kBuffersPerSecond;
  }
  bool owes(MacTable::Port port, uint64_t now) const { return paidAt_[port] > now + credit_; }
  void charge(MacTable::Port port, uint64_t excess, uint64_t now) {
    paidAt_[port] = std::max(paidAt_[port], now) + kShare * excess;
  }
  // The port is gone: the next one with its number owes nothing.
  void forget(MacTable::Port port) { paidAt_[port] = 0; }

 private:
  static constexpr uint64_t kFramesPerSecond = 500000;    // 2 us: a missing page
  static constexpr uint64_t kBuffersPerSecond = 5000000;  // 200 ns: a line of another core's cache
  // 5 ms: interrupts, or a host that takes the processor away, are nobody's fault.
  static constexpr uint64_t kCreditsPerSecond = 200;

  const uint64_t hz_, credit_;
  std::vector<uint64_t> paidAt_;  // by port number
};

}  // namespace vdpa::vswitch
