// The switch's connection to the outside of the node: a netdev through DPDK's net_af_packet. Adds a
// descriptor to sleep on until a frame comes, which that driver lacks. The forwarder handles VLAN
// tags.
#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

struct rte_mempool;

namespace vdpa::vswitch {

class Uplink {
 public:
  // Throws std::runtime_error naming the netdev: it must exist and be up, and the process needs
  // CAP_NET_RAW. `queues` is the number of pollers. EAL must have been started.
  Uplink(const std::string& netdev, unsigned queues, unsigned mtu, rte_mempool* pool);
  ~Uplink();
  Uplink(const Uplink&) = delete;
  Uplink& operator=(const Uplink&) = delete;

  // The size of a frame's slot in the packet socket's ring, in bytes: the pool's packets need it.
  static unsigned slotBytes(unsigned mtu);

  uint16_t port() const { return port_; }  // DPDK's number

  // Readable after a frame has come since armWake(), on any queue: a poller may wake for another's
  // frame. While disarmed, its filter drops all frames, so they cost nothing. One per queue, for
  // its poller.
  int wakeFd(unsigned queue) const { return wakes_[queue].get(); }
  void armWake(unsigned queue);
  void disarmWake(unsigned queue);

 private:
  std::string device_;  // of DPDK
  uint16_t port_ = 0;
  std::vector<UniqueFd> wakes_;  // by queue
};

}  // namespace vdpa::vswitch
