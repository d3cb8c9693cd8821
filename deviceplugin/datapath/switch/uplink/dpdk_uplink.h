// An uplink through DPDK: a netdev by a packet socket or by AF_XDP, or a PCI function by its own
// driver. Its buffers (mbufs) stay on this side.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/uplink/eal.h"
#include "deviceplugin/datapath/switch/uplink/ethernet_port.h"
#include "deviceplugin/datapath/switch/uplink/packet_pool.h"
#include "deviceplugin/datapath/switch/uplink/wake.h"

struct rte_mbuf;

namespace vdpa::vswitch {

// How to find the device, and what its driver needs.
struct UplinkDevice {
  std::string title;             // for people
  std::vector<std::string> eal;  // EAL's options
  std::string name;              // DPDK's
  std::string arguments;         // of a virtual device, which this makes; empty: EAL has found it
  unsigned room = 0;             // bytes of a buffer: a whole frame with its tag
  unsigned packetsPerQueue = 2048;  // descriptors, bursts and caches
  bool dma = false;
  EthernetOptions port;
  // Called for each queue in their order, after it was set up; empty: the port's interrupts, if its
  // driver has them.
  std::function<std::unique_ptr<Wake>(unsigned queue)> makeWake;
};

class DpdkUplink : public Uplink {
 public:
  // One in a process: it starts EAL. `directory` is EAL's. Throws std::runtime_error that names the
  // uplink, the problem and the remedy.
  DpdkUplink(const std::string& directory, UplinkDevice device);
  ~DpdkUplink() override;

  size_t receive(unsigned queue, std::span<UplinkFrame> frames) override;
  void release(unsigned queue) override;
  Offloads offloads() const override { return port_->offloads(); }
  size_t send(unsigned queue, std::span<const Outgoing> frames, size_t& noMemory) override;
  int wakeFd(unsigned queue) const override;
  void armWake(unsigned queue) override;
  void disarmWake(unsigned queue) override;

 private:
  static constexpr uint16_t kBurst = 64;

  // Belongs to its poller.
  struct alignas(64) Queue {
    std::array<rte_mbuf*, kBurst> received;
    uint16_t receivedCount = 0;
    bool registered = false;  // its thread is known to DPDK
    std::unique_ptr<Wake> wake;
  };
  Queue& enter(unsigned number);
  uint16_t transmit(unsigned queue, std::span<rte_mbuf*> packets);
  std::unique_ptr<Wake> interrupt(uint16_t queue) const;

  const Eal eal_;
  std::unique_ptr<PacketPool> pool_;
  std::unique_ptr<EthernetPort> port_;
  std::vector<Queue> queues_;
};

}  // namespace vdpa::vswitch
