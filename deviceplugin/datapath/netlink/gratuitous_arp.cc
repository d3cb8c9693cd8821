#include "deviceplugin/datapath/netlink/gratuitous_arp.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip6.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/mac_address.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/netlink/ip_prefix.h"

namespace vdpa::datapath {
namespace {

struct ArpFrame {
  ether_header ethernet;
  ether_arp arp;
} __attribute__((packed));

struct AdvertisementFrame {
  ether_header ethernet;
  ip6_hdr ip;
  nd_neighbor_advert advertisement;
  nd_opt_hdr option;
  MacAddress::Bytes mac;
} __attribute__((packed));

template <typename Frame>
std::vector<uint8_t> bytesOf(const Frame& frame) {
  std::vector<uint8_t> bytes(sizeof frame);
  std::memcpy(bytes.data(), &frame, sizeof frame);
  return bytes;
}

std::vector<uint8_t> arpFrame(const MacAddress& mac, const IpPrefix& address) {
  ArpFrame frame{};
  std::memset(frame.ethernet.ether_dhost, 0xff, ETH_ALEN);
  std::memcpy(frame.ethernet.ether_shost, mac.bytes().data(), ETH_ALEN);
  frame.ethernet.ether_type = htons(ETHERTYPE_ARP);
  frame.arp.arp_hrd = htons(ARPHRD_ETHER);
  frame.arp.arp_pro = htons(ETHERTYPE_IP);
  frame.arp.arp_hln = ETH_ALEN;
  frame.arp.arp_pln = 4;
  frame.arp.arp_op = htons(ARPOP_REQUEST);
  std::memcpy(frame.arp.arp_sha, mac.bytes().data(), ETH_ALEN);
  std::memcpy(frame.arp.arp_spa, address.bytes.data(), 4);
  std::memcpy(frame.arp.arp_tpa, address.bytes.data(), 4);
  return bytesOf(frame);
}

// The Internet checksum over an ICMPv6 message with its pseudo-header.
uint16_t checksum(const AdvertisementFrame& frame, size_t length) {
  uint32_t sum = static_cast<uint32_t>(length) + IPPROTO_ICMPV6;
  const auto add = [&sum](const void* from, size_t bytes) {
    const auto* byte = static_cast<const uint8_t*>(from);
    for (size_t i = 0; i + 1 < bytes; i += 2)
      sum += static_cast<uint32_t>(byte[i] << 8 | byte[i + 1]);
  };
  add(&frame.ip.ip6_src, 2 * sizeof(in6_addr));
  add(&frame.advertisement, length);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<uint16_t>(~sum));
}

std::vector<uint8_t> advertisementFrame(const MacAddress& mac, const IpPrefix& address) {
  constexpr size_t kLength =
      sizeof(AdvertisementFrame) - sizeof(ether_header) - sizeof(ip6_hdr);  // of ICMPv6
  constexpr MacAddress::Bytes kAllNodes{0x33, 0x33, 0, 0, 0, 1};
  AdvertisementFrame frame{};
  std::memcpy(frame.ethernet.ether_dhost, kAllNodes.data(), ETH_ALEN);
  std::memcpy(frame.ethernet.ether_shost, mac.bytes().data(), ETH_ALEN);
  frame.ethernet.ether_type = htons(ETHERTYPE_IPV6);
  frame.ip.ip6_flow = htonl(6u << 28);
  frame.ip.ip6_plen = htons(kLength);
  frame.ip.ip6_nxt = IPPROTO_ICMPV6;
  frame.ip.ip6_hlim = 255;
  std::memcpy(&frame.ip.ip6_src, address.bytes.data(), 16);
  ::inet_pton(AF_INET6, "ff02::1", &frame.ip.ip6_dst);
  frame.advertisement.nd_na_type = ND_NEIGHBOR_ADVERT;
  frame.advertisement.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
  std::memcpy(&frame.advertisement.nd_na_target, address.bytes.data(), 16);
  frame.option.nd_opt_type = ND_OPT_TARGET_LINKADDR;
  frame.option.nd_opt_len = 1;
  frame.mac = mac.bytes();
  frame.advertisement.nd_na_cksum = checksum(frame, kLength);
  return bytesOf(frame);
}

}  // namespace

std::vector<uint8_t> gratuitousArp(const MacAddress& mac, const std::string& address) {
  const IpPrefix prefix = parsePrefix(address);
  return prefix.family == AF_INET ? arpFrame(mac, prefix) : advertisementFrame(mac, prefix);
}

void sendGratuitousArp(unsigned index, const MacAddress& mac,
                       const std::vector<std::string>& addresses) {
  const UniqueFd socket(
      checked(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "cannot open a packet socket"));
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(index);
  for (const auto& address : addresses) {
    const auto frame = gratuitousArp(mac, address);
    std::memcpy(&to.sll_protocol, &frame[offsetof(ether_header, ether_type)], 2);
    if (::sendto(socket.get(), frame.data(), frame.size(), 0,
                 reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0)
      throw systemError(errno, "cannot send the announcement of {}", address);
  }
}

}  // namespace vdpa::datapath
