// The pollers' view of the ports. Immutable: a change makes a new snapshot, and the old one is
// freed once every poller uses the new one. So the forwarding path reads plain memory.
#pragma once

#include <cstdint>
#include <vector>

#include "deviceplugin/datapath/switch/counters.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/rate_limit.h"

namespace vdpa::vswitch {

inline constexpr MacTable::Port kUplinkPort = 0;  // always the first, used or not
inline constexpr uint16_t kMaxQueuePairs = 16;

struct PortView {
  bool exists = false;
  bool linkUp = false;
  bool spoofCheck = false;
  bool trust = false;  // may send from any address that isn't another port's
  uint16_t vlan = 0;
  uint16_t maxFrame = 0;  // bytes, without a VLAN tag
  uint64_t mac = 0;
  int vid = -1;               // rte_vhost's handle; -1: not connected
  uint16_t rxQueueCount = 0;  // queues the pod receives on
  uint16_t rxQueues[kMaxQueuePairs] = {};
  Counters* counters = nullptr;  // an array with one entry per poller
};

// A queue that the pod sends on.
struct TxQueue {
  MacTable::Port port;
  int vid;
  uint16_t queue;
  int kick;          // an eventfd of rte_vhost's; -1: none
  RateLimit* limit;  // the port's; null: none
};

struct Snapshot {
  uint64_t sequence = 0;
  bool uplink = false;
  std::vector<PortView> ports;             // by port number
  std::vector<std::vector<TxQueue>> work;  // by poller
};

}  // namespace vdpa::vswitch
