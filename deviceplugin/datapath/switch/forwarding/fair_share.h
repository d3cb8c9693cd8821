// Gives ports equal time on a poller: deficit round robin, in cycles. Each pass over the queues is
// worth a microsecond to every port; a port whose frames took longer is passed over until the
// passes have made up for it. Passes in which no port is served are skipped, so that no port waits
// for one that has nothing to send.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace vdpa::vswitch {

// Belongs to one poller.
class FairShare {
 public:
  explicit FairShare(uint64_t hz) : perPass_(hz / 1000000), paidAt_(MacTable::kMaxPorts) {}

  void beginPass() { clock_ += perPass_; }
  bool mayServe(MacTable::Port port) const { return paidAt_[port] <= clock_; }
  // A port saves no credit beyond the rest of a pass.
  void charge(MacTable::Port port, uint64_t cycles) {
    paidAt_[port] = std::max(paidAt_[port], clock_ - perPass_) + cycles;
  }
  uint64_t paidAt(MacTable::Port port) const { return paidAt_[port]; }
  // The port is gone: the next one with its number owes nothing.
  void forget(MacTable::Port port) { paidAt_[port] = 0; }
  // Call when no port was served, with the earliest paidAt() of those that were passed over.
  void skipTo(uint64_t paidAt) { clock_ = std::max(clock_, paidAt); }

 private:
  const uint64_t perPass_;
  uint64_t clock_ = perPass_;     // cycles that every port was given
  std::vector<uint64_t> paidAt_;  // by port number: the clock's time at which it may be served
};

}  // namespace vdpa::vswitch
