// The switch's way out of the node: a netdev by DPDK's net_af_packet, with a way to sleep until a
// frame comes, which that driver has not. VLAN tags are the forwarder's.
#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

struct rte_mempool;

namespace vdpa::vswitch {

class Uplink {
 public:
  // Throws std::runtime_error naming the netdev: it must exist and be up, and the process needs
  // CAP_NET_RAW. `queues` is the number of pollers. After EAL's start.
  Uplink(const std::string& netdev, unsigned queues, unsigned mtu, rte_mempool* pool);
  ~Uplink();
  Uplink(const Uplink&) = delete;
  Uplink& operator=(const Uplink&) = delete;

  // Bytes of one frame's slot in the packet socket's ring: what a packet of the pool must hold.
  static unsigned slotBytes(unsigned mtu);

  uint16_t port() const { return port_; }  // DPDK's number

  // Readable when a frame has come since armWake(), on whatever queue: at worst a poller wakes for
  // another's. While disarmed frames cost the wake socket nothing: its filter drops them. Each
  // queue's poller has one of its own.
  int wakeFd(unsigned queue) const { return wakes_[queue].get(); }
  void armWake(unsigned queue);
  void disarmWake(unsigned queue);

 private:
  std::string device_;  // of DPDK
  uint16_t port_ = 0;
  std::vector<UniqueFd> wakes_;  // by queue
};

}  // namespace vdpa::vswitch
