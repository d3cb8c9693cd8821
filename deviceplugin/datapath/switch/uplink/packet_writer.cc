#include "deviceplugin/datapath/switch/uplink/packet_writer.h"

#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/segments.h"

namespace vdpa::vswitch {
namespace {

constexpr uint32_t kAddresses = 2 * RTE_ETHER_ADDR_LEN;
constexpr uint32_t kTag = sizeof(rte_vlan_hdr);

// Reads a frame from front to back: its head, which is ours, and then the sender's rest.
class FrameReader {
 public:
  explicit FrameReader(const virtqueue::Frame& frame) : frame_(frame) {
    if (frame.data || frame.length == frame.headLength()) return;
    walk_.emplace(*frame.list, *frame.buffer);
    walk_->advance(frame.headerSize + virtqueue::Frame::kHeadSize);
  }

  void read(std::byte* to, uint32_t count) {
    if (at_ < frame_.headLength()) {
      const uint32_t part = std::min(count, frame_.headLength() - at_);
      std::memcpy(to, frame_.head.data() + at_, part);
      at_ += part;
      to += part;
      count -= part;
    }
    if (count == 0) return;
    if (frame_.data)
      virtqueue::snapshot(to, frame_.data + virtqueue::Frame::kHeadSize + at_ - frame_.headLength(),
                          count);
    else
      walk(to, count);
    at_ += count;
  }

 private:
  void walk(std::byte* to, uint32_t count) {
    while (count > 0) {
      const uint32_t part = std::min(count, walk_->length());
      virtqueue::snapshot(to, walk_->data(), part);
      walk_->advance(part);
      to += part;
      count -= part;
    }
  }

  const virtqueue::Frame& frame_;
  std::optional<virtqueue::SegmentWalk> walk_;  // behind the head, of a frame in pieces
  uint32_t at_ = 0;
};

// Null: no buffers are left. The first 12 bytes are followed by the tag, if there is one.
rte_mbuf* copy(rte_mempool* pool, const virtqueue::Frame& frame, uint16_t vlan) {
  rte_mbuf* const first = rte_pktmbuf_alloc(pool);
  if (!first) return nullptr;
  FrameReader reader(frame);
  uint32_t left = frame.length;
  rte_mbuf* last = first;
  uint32_t used = 0;
  if (vlan != 0) {
    auto* const start = rte_pktmbuf_mtod(first, std::byte*);
    reader.read(start, kAddresses);
    const uint16_t tag[] = {rte_cpu_to_be_16(RTE_ETHER_TYPE_VLAN), rte_cpu_to_be_16(vlan)};
    std::memcpy(start + kAddresses, tag, sizeof tag);
    used = kAddresses + kTag;
    left -= kAddresses;
  }
  for (;;) {
    const uint32_t piece = std::min<uint32_t>(left, rte_pktmbuf_tailroom(last) - used);
    reader.read(rte_pktmbuf_mtod_offset(last, std::byte*, used), piece);
    last->data_len = static_cast<uint16_t>(used + piece);
    first->pkt_len += last->data_len;
    left -= piece;
    if (left == 0) return first;
    used = 0;
    last->next = rte_pktmbuf_alloc(pool);
    last = last->next;
    if (!last) {
      rte_pktmbuf_free(first);
      return nullptr;
    }
    ++first->nb_segs;
  }
}

// Bytes in front of the layer-3 header, and what follows them.
struct LinkHeader {
  uint32_t length = RTE_ETHER_HDR_LEN;
  uint16_t type = 0;
};

LinkHeader linkHeader(const rte_mbuf* packet) {
  LinkHeader header;
  const auto typeAt = [packet](uint32_t offset) {
    return rte_be_to_cpu_16(*rte_pktmbuf_mtod_offset(packet, const rte_be16_t*, offset));
  };
  header.type = typeAt(kAddresses);
  while ((header.type == RTE_ETHER_TYPE_VLAN || header.type == RTE_ETHER_TYPE_QINQ) &&
         header.length + kTag + sizeof(rte_ipv6_hdr) <= packet->data_len) {
    header.type = typeAt(header.length + 2);
    header.length += kTag;
  }
  return header;
}

// Whether DPDK can name it: TCP or UDP right behind a header of IPv4, or of IPv6 without
// extensions.
bool describe(rte_mbuf* packet, uint32_t start, uint32_t offset) {
  const LinkHeader link = linkHeader(packet);
  uint8_t protocol = 0;
  uint64_t flags = 0;
  if (start < link.length || packet->data_len < start) return false;
  const uint32_t length = start - link.length;
  if (link.type == RTE_ETHER_TYPE_IPV4 && length >= sizeof(rte_ipv4_hdr)) {
    const auto* ip = rte_pktmbuf_mtod_offset(packet, const rte_ipv4_hdr*, link.length);
    if (rte_ipv4_hdr_len(ip) != length) return false;
    protocol = ip->next_proto_id;
    flags = RTE_MBUF_F_TX_IPV4;
  } else if (link.type == RTE_ETHER_TYPE_IPV6 && length == sizeof(rte_ipv6_hdr)) {
    protocol = rte_pktmbuf_mtod_offset(packet, const rte_ipv6_hdr*, link.length)->proto;
    flags = RTE_MBUF_F_TX_IPV6;
  }
  if (protocol == IPPROTO_TCP && offset == offsetof(rte_tcp_hdr, cksum) &&
      packet->data_len >= start + sizeof(rte_tcp_hdr))
    flags |= RTE_MBUF_F_TX_TCP_CKSUM;
  else if (protocol == IPPROTO_UDP && offset == offsetof(rte_udp_hdr, dgram_cksum) &&
           packet->data_len >= start + sizeof(rte_udp_hdr))
    flags |= RTE_MBUF_F_TX_UDP_CKSUM;
  else
    return false;
  packet->l2_len = link.length;
  packet->l3_len = length;
  packet->ol_flags |= flags;
  return true;
}

// Of any protocol: the field holds the sum of the pseudo header, and the rest is added to it.
void finishChecksum(rte_mbuf* packet, uint32_t start, uint32_t offset) {
  if (start + offset + sizeof(uint16_t) > packet->data_len) return;
  uint16_t sum = static_cast<uint16_t>(~rte_raw_cksum(
      rte_pktmbuf_mtod_offset(packet, const void*, start), packet->data_len - start));
  if (sum == 0) sum = 0xffff;  // of UDP, 0 means that there is none
  std::memcpy(rte_pktmbuf_mtod_offset(packet, void*, start + offset), &sum, sizeof sum);
}

bool describeSegments(rte_mbuf* packet, const virtqueue::NetHeader& header, uint32_t start) {
  if ((packet->ol_flags & RTE_MBUF_F_TX_L4_MASK) != RTE_MBUF_F_TX_TCP_CKSUM) return false;
  const auto* tcp = rte_pktmbuf_mtod_offset(packet, const rte_tcp_hdr*, start);
  const uint32_t length = (tcp->data_off >> 4) * 4u;
  if (length < sizeof(rte_tcp_hdr) || header.gsoSize == 0 || start + length >= packet->pkt_len)
    return false;
  packet->l4_len = length;
  packet->tso_segsz = header.gsoSize;
  packet->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
  if (packet->ol_flags & RTE_MBUF_F_TX_IPV4) packet->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
  return true;
}

}  // namespace

rte_mbuf* writePacket(rte_mempool* pool, const Uplink::Outgoing& frame, bool& noMemory) {
  rte_mbuf* const packet = copy(pool, *frame.frame, frame.vlan);
  noMemory = !packet;
  const auto& header = frame.header;
  if (!packet || !(header.flags & virtqueue::net_flag::kNeedsChecksum)) return packet;
  const uint32_t start = header.checksumStart + (frame.vlan != 0 ? kTag : 0);
  const bool described = describe(packet, start, header.checksumOffset);
  if (header.gsoType == virtqueue::gso::kNone) {
    if (!described) finishChecksum(packet, start, header.checksumOffset);
    return packet;
  }
  if (described && describeSegments(packet, header, start)) return packet;
  rte_pktmbuf_free(packet);
  return nullptr;
}

}  // namespace vdpa::vswitch
