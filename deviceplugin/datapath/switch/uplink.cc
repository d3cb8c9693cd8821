#include "deviceplugin/datapath/switch/uplink.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <rte_bus_vdev.h>
#include <rte_ethdev.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/unique_fd.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23  // linux/if_packet.h since 4.20
#endif

namespace vdpa::vswitch {
namespace {

void setFilter(int socket, uint32_t accepted) {
  sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, accepted)};
  const sock_fprog program{1, code};
  ::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

// Opens a packet socket that only signals that a frame came. It also keeps the netdev promiscuous.
UniqueFd openWake(const std::string& netdev) {
  const unsigned index = ::if_nametoindex(netdev.c_str());
  if (index == 0)
    throw systemError(
        errno, "uplink netdev {} is not on this node; check 'uplink' in the configuration", netdev);
  UniqueFd socket(checked(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                          "cannot open a packet socket for uplink {} (it needs CAP_NET_RAW)",
                          netdev));
  setFilter(socket.get(), 0);
  const int on = 1;
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  checked(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "cannot bind a packet socket to uplink {}", netdev);
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(index);
  membership.mr_type = PACKET_MR_PROMISC;
  checked(
      ::setsockopt(socket.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership),
      "cannot make uplink {} promiscuous", netdev);
  return socket;
}

void check(int result, const std::string& netdev, const char* what) {
  if (result < 0)
    throw std::runtime_error(
        fmt::format("cannot {} uplink {}: {}", what, netdev, rte_strerror(-result)));
}

}  // namespace

Uplink::Uplink(const std::string& netdev, unsigned queues, unsigned mtu, rte_mempool* pool)
    : device_("net_af_packet0") {
  for (unsigned queue = 0; queue < queues; ++queue) wakes_.push_back(openWake(netdev));
  const unsigned slot = slotBytes(mtu);
  const std::string arguments =
      fmt::format("iface={},qpairs={},blocksz={},framesz={},framecnt=512,qdisc_bypass=1", netdev,
                  queues, std::max(slot, 4096u), slot);
  check(rte_vdev_init(device_.c_str(), arguments.c_str()), netdev, "open");
  check(rte_eth_dev_get_port_by_name(device_.c_str(), &port_), netdev, "find");
  rte_eth_conf configuration{};
  const auto count = static_cast<uint16_t>(queues);
  check(rte_eth_dev_configure(port_, count, count, &configuration), netdev, "configure");
  for (uint16_t queue = 0; queue < count; ++queue) {
    check(rte_eth_rx_queue_setup(port_, queue, 512, SOCKET_ID_ANY, nullptr, pool), netdev,
          "set up");
    check(rte_eth_tx_queue_setup(port_, queue, 512, SOCKET_ID_ANY, nullptr), netdev, "set up");
  }
  check(rte_eth_dev_start(port_), netdev, "start");
}

unsigned Uplink::slotBytes(unsigned mtu) {
  // A frame, its tag and the ring's own header must fit one slot; slots are powers of two of at
  // least 2 KiB.
  unsigned slot = 2048;
  while (slot < mtu + 18 + 256) slot *= 2;
  return slot;
}

Uplink::~Uplink() {
  rte_eth_dev_stop(port_);
  rte_eth_dev_close(port_);
}

void Uplink::armWake(unsigned queue) {
  setFilter(wakes_[queue].get(), 1);
}

void Uplink::disarmWake(unsigned queue) {
  setFilter(wakes_[queue].get(), 0);
  char byte;
  while (::recv(wakes_[queue].get(), &byte, sizeof byte, MSG_TRUNC) >= 0) {
  }
}

}  // namespace vdpa::vswitch
