// A port, as the pollers see it.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"

namespace vdpa::vswitch {

inline constexpr MacTable::Port kUplinkPort = 0;  // always the first, used or not
inline constexpr uint16_t kMaxQueuePairs = 16;

using VlanSet = std::bitset<4096>;

class Capture;

// Immutable: a change makes a new one, and the old one is retired (epoch.h).
struct PortView {
  bool linkUp = false;
  bool spoofCheck = false;
  bool trust = false;  // may send from any address that isn't another port's
  // The VLAN of untagged frames: of an access port the only one, of a trunk the native one. 0 of an
  // access port: the VLAN of those without one. 0 of a trunk: untagged frames are dropped.
  uint16_t vlan = 0;
  std::shared_ptr<const VlanSet> trunk;  // VLANs of tagged frames; null: an access port
  uint16_t maxFrame = 0;                 // bytes, without a VLAN tag
  uint64_t mac = 0;                      // packed()
  const Capture* capture = nullptr;      // null: nobody captures its frames
  RateLimit* sendLimit = nullptr;        // of what the pod sends; null: none
  RateLimit* receiveLimit = nullptr;     // of what it receives; null: none
  RateLimit* stormLimit = nullptr;       // frames a second that it may send to all; null: none
  uint16_t receiveCount = 0;  // enabled queues on which the pod receives; 0: not connected
  std::array<ReceiveQueue*, kMaxQueuePairs> receive{};
};

// Made and destroyed by the control thread; retired when it goes.
struct Port {
  MacTable::Port number = 0;
  std::string id;
  std::atomic<const PortView*> view{nullptr};  // never null once it is in the table
  std::vector<Counters> counters;              // by poller
};

// The ports by number, and who gets a frame to everybody. Written by the control thread, read by
// the pollers during a pass.
class PortTable {
 public:
  PortTable();
  ~PortTable();
  PortTable(const PortTable&) = delete;
  PortTable& operator=(const PortTable&) = delete;

  // --- pollers
  // Null: there is none.
  Port* find(MacTable::Port number) const {
    return number < MacTable::kMaxPorts ? ports_[number].load(std::memory_order_acquire) : nullptr;
  }
  // The ports in this VLAN without the uplink, in any order; null: none.
  const std::vector<Port*>* members(uint16_t vlan) const {
    return members_[vlan].load(std::memory_order_acquire);
  }

  // Changes whenever a verdict of a frame's way may have: ports added or removed, their VLANs,
  // addresses and rights.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // --- the control thread; what these replace must be retired: they return it
  using Members = std::unique_ptr<const std::vector<Port*>>;
  void add(Port& port);
  void remove(const Port& port);
  // Replaces the list of one VLAN; null: none.
  Members setMembers(uint16_t vlan, Members members);
  // Call after a port's view has got another address or other rights.
  void changed() { version_.fetch_add(1, std::memory_order_release); }

 private:
  std::array<std::atomic<Port*>, MacTable::kMaxPorts> ports_{};
  std::array<std::atomic<const std::vector<Port*>*>, 4096> members_{};
  std::atomic<uint64_t> version_{0};
};

}  // namespace vdpa::vswitch
