// One poller's forwarding: sends a burst of frames from a port to the port in the MAC table, or
// floods it to the VLAN. Nothing here blocks, locks, allocates (but from the packet pool) or makes
// a system call.
#pragma once

#include <rte_mbuf.h>

#include <vector>

#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/call_guard.h"
#include "deviceplugin/datapath/switch/snapshot.h"

namespace vdpa::vswitch {

class Forwarder {
 public:
  static constexpr uint16_t kBurst = 64;

  // `poller` numbers this forwarder's counters; `uplink` is the DPDK port, `uplinkQueue` this
  // poller's queue on it.
  Forwarder(MacTable& table, unsigned poller, uint16_t uplink, uint16_t uplinkQueue,
            rte_mempool* pool, CallGuard& guard, ServingPage::Cell& serving);

  // Takes ownership of the frames. `queue` is the source's queue pair, which spreads flows over the
  // destination's queues. `seconds` is the table's clock.
  void forward(const Snapshot& snapshot, MacTable::Port source, uint16_t queue, rte_mbuf** frames,
               uint16_t count, uint32_t seconds);

 private:
  struct Batch {
    uint16_t count = 0;
    rte_mbuf* frames[kBurst];
  };

  bool spoofed(const PortView& source, uint64_t sender, uint16_t vlan) const;
  bool admit(const PortView& source, rte_mbuf* frame, uint16_t& vlan, uint64_t& destination,
             uint32_t seconds);
  void add(MacTable::Port port, rte_mbuf* frame);
  void flood(const Snapshot& snapshot, MacTable::Port source, uint16_t vlan, rte_mbuf* frame);
  void deliver(const Snapshot& snapshot, MacTable::Port port, uint16_t queue);
  void deliverToUplink(const Snapshot& snapshot);

  MacTable& table_;
  const unsigned poller_;
  const uint16_t uplink_;
  const uint16_t uplinkQueue_;
  rte_mempool* pool_;
  CallGuard& guard_;
  ServingPage::Cell& serving_;

  std::vector<Batch> batches_;  // by port number
  std::vector<MacTable::Port>
      touched_;                   // ports with frames in their batch; never exceeds its capacity
  uint16_t uplinkVlans_[kBurst];  // of the frames in the uplink's batch

  // The last address learned and the last one looked up: most bursts need no table access.
  struct Memory {
    uint64_t source = 0, destination = 0;
    uint32_t learnedAt = 0, lookedUpAt = 0;
    uint32_t changes = 0;  // of the table at the lookup
    uint16_t sourceVlan = 0, destinationVlan = 0;
    MacTable::Port port = MacTable::kNoPort;
  };
  std::vector<Memory> memory_;  // by port number
  MacTable::Port source_ = 0;   // of the current burst
};

}  // namespace vdpa::vswitch
