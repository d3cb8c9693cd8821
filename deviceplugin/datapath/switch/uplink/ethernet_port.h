// A DPDK port, configured and started, with a queue in each direction for each poller.
#pragma once

#include <rte_mempool.h>

#include <cstdint>
#include <functional>
#include <string>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/uplink/wake.h"

namespace vdpa::vswitch {

struct EthernetOptions {
  std::string uplink;  // for errors
  unsigned queues = 1;
  unsigned mtu = 0;          // bytes of layer-3 payload; 0: the device's own stays
  bool interrupts = false;   // for received frames, if its driver has them
  bool promiscuous = false;  // false: it already is
  std::function<void(uint16_t queue)> onReceiveQueue;  // called after each was set up
};

class EthernetPort {
 public:
  // `port` is DPDK's number. Throws std::runtime_error that names the uplink.
  EthernetPort(uint16_t port, rte_mempool* pool, const EthernetOptions& options);
  ~EthernetPort();
  EthernetPort(const EthernetPort&) = delete;
  EthernetPort& operator=(const EthernetPort&) = delete;

  uint16_t number() const { return port_; }
  Offloads offloads() const { return offloads_; }  // of frames that it sends
  bool interrupts() const { return interrupts_; }

 private:
  const uint16_t port_;
  Offloads offloads_ = Offloads::kNone;
  bool interrupts_ = false;
};

// A queue's interrupt, of a port that has them.
class RxInterrupt : public Wake {
 public:
  RxInterrupt(uint16_t port, uint16_t queue, int fd) : port_(port), queue_(queue), fd_(fd) {}
  int fd() const override { return fd_; }
  void arm() override;
  void disarm() override;

 private:
  const uint16_t port_, queue_;
  const int fd_;  // the driver's eventfd
};

}  // namespace vdpa::vswitch
