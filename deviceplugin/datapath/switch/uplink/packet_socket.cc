#include "deviceplugin/datapath/switch/uplink/packet_socket.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include "common/errors.h"

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

}  // namespace

PacketSocket::PacketSocket(const std::string& netdev) {
  const unsigned index = ::if_nametoindex(netdev.c_str());
  if (index == 0)
    throw systemError(
        errno, "uplink netdev {} is not on this node; check 'uplink' in the configuration", netdev);
  socket_ =
      UniqueFd(checked(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                       "cannot open a packet socket for uplink {} (it needs CAP_NET_RAW)", netdev));
  setFilter(socket_.get(), 0);
  const int on = 1;
  ::setsockopt(socket_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  checked(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "cannot bind a packet socket to uplink {}", netdev);
  packet_mreq membership{};
  membership.mr_ifindex = static_cast<int>(index);
  membership.mr_type = PACKET_MR_PROMISC;
  checked(::setsockopt(socket_.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership,
                       sizeof membership),
          "cannot make uplink {} promiscuous", netdev);
}

void PacketSocket::arm() {
  setFilter(socket_.get(), 1);
}

void PacketSocket::disarm() {
  setFilter(socket_.get(), 0);
  char byte;
  while (::recv(socket_.get(), &byte, sizeof byte, MSG_TRUNC) >= 0) {
  }
}

}  // namespace vdpa::vswitch
