#include "deviceplugin/datapath/switch/uplink/ethernet_port.h"

#include <fmt/core.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "deviceplugin/datapath/switch/offload/offloads.h"

namespace vdpa::vswitch {
namespace {

constexpr uint16_t kDescriptors = 512;  // of each queue, in each direction

constexpr uint64_t kRxChecksums =
    RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
constexpr uint64_t kTxChecksums = RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
// DPDK leaves the checksum of a segment's IPv4 header to the same device, and a frame to be
// segmented takes several buffers.
constexpr uint64_t kSegmentation =
    RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

void check(int result, const std::string& uplink, const char* what) {
  if (result < 0)
    throw std::runtime_error(
        fmt::format("cannot {} uplink {}: {}", what, uplink, rte_strerror(-result)));
}

}  // namespace

EthernetPort::EthernetPort(uint16_t port, rte_mempool* pool, const EthernetOptions& options)
    : port_(port) {
  const auto& uplink = options.uplink;
  rte_eth_dev_info device;
  check(rte_eth_dev_info_get(port, &device), uplink, "ask");
  const auto queues = static_cast<uint16_t>(options.queues);
  if (queues > device.max_rx_queues || queues > device.max_tx_queues)
    throw std::runtime_error(fmt::format(
        "uplink {} has {} receive and {} transmit queues, but the switch {} polling threads: give "
        "it fewer 'cores' in the configuration",
        uplink, device.max_rx_queues, device.max_tx_queues, queues));
  rte_eth_conf configuration{};
  if (options.mtu != 0) {
    if (options.mtu > device.max_mtu)
      throw std::runtime_error(
          fmt::format("uplink {} carries an MTU of at most {}, but 'mtu' in "
                      "the configuration is {}",
                      uplink, device.max_mtu, options.mtu));
    configuration.rxmode.mtu = options.mtu;
    // Frames of more than a buffer that its hardware knows, which are put together again.
    if (options.mtu > RTE_ETHER_MTU)
      configuration.rxmode.offloads |= device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
  }
  configuration.rxmode.offloads |= device.rx_offload_capa & kRxChecksums;
  if ((device.tx_offload_capa & kTxChecksums) == kTxChecksums) {
    configuration.txmode.offloads |= kTxChecksums;
    offloads_ = Offloads::kChecksum;
    if ((device.tx_offload_capa & kSegmentation) == kSegmentation) {
      configuration.txmode.offloads |= kSegmentation;
      offloads_ = offloads_ | Offloads::kTso4 | Offloads::kTso6;
    }
  }
  if (queues > 1 && device.flow_type_rss_offloads != 0) {
    configuration.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    configuration.rx_adv_conf.rss_conf.rss_hf =
        device.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
  }
  configuration.intr_conf.rxq = options.interrupts;
  int configured = rte_eth_dev_configure(port, queues, queues, &configuration);
  if (configured < 0 && options.interrupts) {  // its driver may have none
    configuration.intr_conf.rxq = 0;
    configured = rte_eth_dev_configure(port, queues, queues, &configuration);
  }
  check(configured, uplink, "configure");
  uint16_t receive = kDescriptors, transmit = kDescriptors;
  check(rte_eth_dev_adjust_nb_rx_tx_desc(port, &receive, &transmit), uplink, "size the queues of");
  for (uint16_t queue = 0; queue < queues; ++queue) {
    check(rte_eth_rx_queue_setup(port, queue, receive, SOCKET_ID_ANY, nullptr, pool), uplink,
          "set up");
    if (options.onReceiveQueue) options.onReceiveQueue(queue);
    check(rte_eth_tx_queue_setup(port, queue, transmit, SOCKET_ID_ANY, nullptr), uplink, "set up");
  }
  check(rte_eth_dev_start(port), uplink, "start");
  if (options.promiscuous) check(rte_eth_promiscuous_enable(port), uplink, "make promiscuous");
  interrupts_ = configuration.intr_conf.rxq != 0;
}

EthernetPort::~EthernetPort() {
  rte_eth_dev_stop(port_);
  rte_eth_dev_close(port_);
}

void RxInterrupt::arm() {
  rte_eth_dev_rx_intr_enable(port_, queue_);
}

void RxInterrupt::disarm() {
  rte_eth_dev_rx_intr_disable(port_, queue_);
  uint64_t count;
  [[maybe_unused]] const auto ignored = ::read(fd_, &count, sizeof count);
}

}  // namespace vdpa::vswitch
