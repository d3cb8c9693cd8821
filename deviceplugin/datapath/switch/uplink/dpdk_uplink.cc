#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"

#include <fmt/core.h>
#include <rte_bus_vdev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/uplink/ethernet_port.h"
#include "deviceplugin/datapath/switch/uplink/packet_pool.h"
#include "deviceplugin/datapath/switch/uplink/packet_writer.h"
#include "deviceplugin/datapath/switch/uplink/prepare_all.h"
#include "deviceplugin/datapath/switch/uplink/wake.h"

namespace vdpa::vswitch {
namespace {

uint16_t find(const UplinkDevice& device) {
  const int made =
      device.arguments.empty() ? 0 : rte_vdev_init(device.name.c_str(), device.arguments.c_str());
  if (made < 0)
    throw std::runtime_error(
        fmt::format("cannot open uplink {}: {}", device.title, rte_strerror(-made)));
  uint16_t port = 0;
  if (rte_eth_dev_get_port_by_name(device.name.c_str(), &port) != 0)
    throw std::runtime_error(
        fmt::format("uplink {} has no driver of DPDK's: use its netdev, or "
                    "another device",
                    device.title));
  return port;
}

}  // namespace

DpdkUplink::DpdkUplink(const std::string& directory, UplinkDevice device)
    : eal_(directory, device.title, device.eal), queues_(device.port.queues) {
  const uint16_t port = find(device);
  device.port.uplink = device.title;
  pool_ = std::make_unique<PacketPool>(device.packetsPerQueue * device.port.queues, device.room,
                                       device.dma);
  if (device.makeWake)
    device.port.onReceiveQueue = [&](uint16_t queue) {
      queues_[queue].wake = device.makeWake(queue);
    };
  port_ = std::make_unique<EthernetPort>(port, pool_->get(), device.port);
  if (device.port.interrupts)
    for (size_t queue = 0; queue < queues_.size(); ++queue)
      queues_[queue].wake = interrupt(static_cast<uint16_t>(queue));
}

DpdkUplink::~DpdkUplink() = default;

// Null: there is none that works.
std::unique_ptr<Wake> DpdkUplink::interrupt(uint16_t queue) const {
  if (!port_->interrupts()) return nullptr;
  const int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(port_->number(), queue);
  if (fd < 0 || rte_eth_dev_rx_intr_enable(port_->number(), queue) != 0) return nullptr;
  auto wake = std::make_unique<RxInterrupt>(port_->number(), queue, fd);
  wake->disarm();
  return wake;
}

DpdkUplink::Queue& DpdkUplink::enter(unsigned number) {
  Queue& queue = queues_[number];
  if (!queue.registered) [[unlikely]] {
    // Gives the thread a cache of the pool's packets. Without one it is only slower.
    rte_thread_register();
    queue.registered = true;
  }
  return queue;
}

size_t DpdkUplink::receive(unsigned number, std::span<UplinkFrame> frames) {
  Queue& queue = enter(number);
  const auto room = static_cast<uint16_t>(std::min<size_t>(frames.size(), kBurst));
  const uint16_t count =
      rte_eth_rx_burst(port_->number(), static_cast<uint16_t>(number), queue.received.data(), room);
  uint16_t kept = 0;
  for (uint16_t i = 0; i < count; ++i) {
    rte_mbuf* const packet = queue.received[i];
    if (packet->nb_segs > 1 && rte_pktmbuf_linearize(packet) != 0) [[unlikely]] {
      rte_pktmbuf_free(packet);  // longer than any frame that was agreed on
      continue;
    }
    const bool checked =
        (packet->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    frames[kept] = {rte_pktmbuf_mtod(packet, const std::byte*), packet->data_len, checked};
    queue.received[kept++] = packet;
  }
  queue.receivedCount = kept;
  return kept;
}

void DpdkUplink::release(unsigned number) {
  Queue& queue = queues_[number];
  rte_pktmbuf_free_bulk(queue.received.data(), queue.receivedCount);
  queue.receivedCount = 0;
}

size_t DpdkUplink::send(unsigned number, std::span<const Outgoing> frames, size_t& noMemory) {
  enter(number);
  size_t sent = 0;
  std::array<rte_mbuf*, kBurst> packets;
  while (!frames.empty()) {
    const auto burst = frames.first(std::min<size_t>(frames.size(), kBurst));
    frames = frames.subspan(burst.size());
    size_t count = 0;
    for (const Outgoing& frame : burst) {
      bool exhausted = false;
      if (rte_mbuf* const packet = writePacket(pool_->get(), frame, exhausted))
        packets[count++] = packet;
      else if (exhausted)
        ++noMemory;
    }
    sent += transmit(number, std::span(packets).first(count));
  }
  return sent;
}

uint16_t DpdkUplink::transmit(unsigned number, std::span<rte_mbuf*> packets) {
  const auto queue = static_cast<uint16_t>(number);
  auto count = static_cast<uint16_t>(packets.size());
  const bool plain = std::all_of(packets.begin(), packets.end(),
                                 [](const rte_mbuf* packet) { return packet->ol_flags == 0; });
  // Drivers differ in what they want in a checksum's field.
  if (!plain)
    count = static_cast<uint16_t>(prepareAll(packets, [&](std::span<rte_mbuf*> some) {
      return rte_eth_tx_prepare(port_->number(), queue, some.data(),
                                static_cast<uint16_t>(some.size()));
    }));
  const uint16_t sent = rte_eth_tx_burst(port_->number(), queue, packets.data(), count);
  const auto refused = packets.subspan(sent);
  rte_pktmbuf_free_bulk(refused.data(), static_cast<unsigned>(refused.size()));
  return sent;
}

int DpdkUplink::wakeFd(unsigned queue) const {
  const auto& wake = queues_[queue].wake;
  return wake ? wake->fd() : -1;
}

void DpdkUplink::armWake(unsigned queue) {
  if (const auto& wake = queues_[queue].wake) wake->arm();
}

void DpdkUplink::disarmWake(unsigned queue) {
  if (const auto& wake = queues_[queue].wake) wake->disarm();
}

}  // namespace vdpa::vswitch
