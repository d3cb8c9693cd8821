// Frames in DPDK's buffers: the bytes, and the description of what a device has to finish.
#include "deviceplugin/datapath/switch/uplink/packet_writer.h"

#include <catch2/catch.hpp>
#include <rte_ip.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/datapath/switch/uplink/eal.h"
#include "deviceplugin/datapath/switch/uplink/packet_pool.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

using namespace vdpa::vswitch;
using namespace vdpa::virtqueue;

namespace {

using Bytes = std::vector<uint8_t>;
using Packet = std::unique_ptr<rte_mbuf, decltype(&rte_pktmbuf_free)>;

constexpr uint8_t kNeedsChecksum = 1, kTcp4 = 1, kTcp6 = 4;
constexpr uint16_t kRoom = 2048;

// EAL starts once in a process.
rte_mempool* pool() {
  static const Eal eal("/tmp", "none", {"--no-pci", "-m", "16"});
  static const PacketPool packets(512, kRoom, false);
  return packets.get();
}

Packet write(const Frame& frame, const NetHeader& header = {}, uint16_t vlan = 0) {
  bool noMemory = false;
  return {writePacket(pool(), {&frame, header, vlan}, noMemory), rte_pktmbuf_free};
}

Frame frameOf(const Bytes& bytes) {
  return vdpa::virtqueue::frameOf(reinterpret_cast<const std::byte*>(bytes.data()),
                                  static_cast<uint32_t>(bytes.size()));
}

Bytes bytesOf(const Packet& packet) {
  Bytes bytes;
  for (const rte_mbuf* piece = packet.get(); piece; piece = piece->next) {
    const auto* data = rte_pktmbuf_mtod(piece, const uint8_t*);
    bytes.insert(bytes.end(), data, data + piece->data_len);
  }
  CHECK(bytes.size() == packet->pkt_len);
  return bytes;
}

Bytes pattern(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

Bytes tagged(Bytes bytes, uint16_t vlan) {
  bytes.insert(bytes.begin() + 12,
               {0x81, 0x00, static_cast<uint8_t>(vlan >> 8), static_cast<uint8_t>(vlan)});
  return bytes;
}

// TCP or UDP in IPv4 or IPv6, with `payload` bytes.
Bytes internet(bool six, uint8_t protocol, size_t payload) {
  const size_t network = six ? 40 : 20, transport = protocol == 6 ? 20 : 8;
  Bytes bytes = pattern(14 + network + transport + payload);
  bytes[12] = six ? 0x86 : 0x08;
  bytes[13] = six ? 0xdd : 0x00;
  bytes[14] = six ? 0x60 : 0x45;
  bytes[six ? 20 : 23] = protocol;
  if (protocol == 6) bytes[14 + network + 12] = 0x50;
  return bytes;
}

NetHeader checksum(bool six, uint8_t protocol) {
  NetHeader header;
  header.flags = kNeedsChecksum;
  header.checksumStart = six ? 54 : 34;
  header.checksumOffset = protocol == 6 ? 16 : 6;
  return header;
}

}  // namespace

TEST_CASE("a frame is written as it is, with a tag where one is asked for") {
  for (const size_t size : {14u, 60u, 64u, 65u, 1514u, 2044u}) {
    const Bytes bytes = pattern(size);
    const Frame frame = frameOf(bytes);
    CHECK(bytesOf(write(frame)) == bytes);
    CHECK(bytesOf(write(frame, {}, 0x123)) == tagged(bytes, 0x123));
    CHECK(write(frame)->ol_flags == 0);
  }
}

TEST_CASE("a frame that is longer than a buffer takes several") {
  const Bytes bytes = pattern(65000);
  const Packet packet = write(frameOf(bytes), {}, 5);
  CHECK(packet->nb_segs == 32);
  CHECK(bytesOf(packet) == tagged(bytes, 5));
}

TEST_CASE("a frame in pieces, behind its header") {
  Bytes bytes = pattern(3000);
  BufferList list;
  auto* const data = reinterpret_cast<std::byte*>(bytes.data());
  Buffer buffer;
  buffer.length = 3000;
  buffer.pieces = 3;
  buffer.segment = list.addSegment({data, 0, 40});
  list.addSegment({data + 40, 0, 1500});
  list.addSegment({data + 1540, 0, 1460});
  buffer.data = data;
  Frame frame;
  REQUIRE(readFrame(list, buffer, 12, frame));
  CHECK(bytesOf(write(frame, {}, 7)) == tagged(Bytes(bytes.begin() + 12, bytes.end()), 7));
}

TEST_CASE("the head is what was decided on, whatever its sender writes there afterwards") {
  Bytes bytes = pattern(200);
  const Frame frame = frameOf(bytes);
  const Bytes before = bytes;
  std::fill(bytes.begin(), bytes.begin() + 64, uint8_t{0});
  CHECK(bytesOf(write(frame)) == before);
}

TEST_CASE("a head that got or lost a tag") {
  const Bytes bytes = pattern(200);
  Frame longer = frameOf(bytes);
  std::copy_backward(longer.head.begin() + 12, longer.head.begin() + 64, longer.head.begin() + 68);
  const Bytes tag{0x81, 0x00, 0x00, 0x05};
  std::memcpy(longer.head.data() + 12, tag.data(), tag.size());
  longer.headBytes += 4;
  longer.length += 4;
  CHECK(bytesOf(write(longer)) == tagged(bytes, 5));
  const Bytes before = tagged(bytes, 5);
  Frame shorter = frameOf(before);
  std::copy(shorter.head.begin() + 16, shorter.head.begin() + 64, shorter.head.begin() + 12);
  shorter.headBytes -= 4;
  shorter.length -= 4;
  CHECK(bytesOf(write(shorter)) == bytes);
}

TEST_CASE("checksums of TCP and UDP are left to the device") {
  for (const bool six : {false, true})
    for (const uint8_t protocol : {uint8_t{6}, uint8_t{17}})
      for (const uint16_t vlan : {0, 9}) {
        const Bytes bytes = internet(six, protocol, 100);
        const Packet packet = write(frameOf(bytes), checksum(six, protocol), vlan);
        CHECK(packet->ol_flags ==
              ((six ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4) |
               (protocol == 6 ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM)));
        CHECK(packet->l2_len == (vlan ? 18 : 14));
        CHECK(packet->l3_len == (six ? 40 : 20));
        CHECK(bytesOf(packet) == (vlan ? tagged(bytes, vlan) : bytes));
      }
}

TEST_CASE("a tag of the sender's own is part of the link's header") {
  const Bytes bytes = tagged(internet(false, 6, 100), 100);
  NetHeader header = checksum(false, 6);
  header.checksumStart = 38;
  const Packet packet = write(frameOf(bytes), header);
  CHECK(packet->l2_len == 18);
  CHECK(packet->l3_len == 20);
}

TEST_CASE("other checksums are finished here") {
  // Over everything from its start on, with what the field holds: here a protocol of IPv4's that no
  // device knows.
  Bytes bytes = internet(false, 17, 100);
  bytes[23] = 200;
  for (const uint16_t vlan : {0, 9}) {
    const Packet packet = write(frameOf(bytes), checksum(false, 17), vlan);
    CHECK(packet->ol_flags == 0);
    const Bytes sent = bytesOf(packet);
    const size_t start = vlan ? 38 : 34;
    uint32_t sum = 0;
    for (size_t i = start; i + 1 < sent.size(); i += 2) {
      // The field's sum of the pseudo header was part of it.
      const size_t from = i - (vlan ? 4 : 0);
      sum += i == start + 6 ? 0u : bytes[from] * 256u + bytes[from + 1];
    }
    sum += bytes[40] * 256u + bytes[41];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    CHECK(sent[start + 6] * 256u + sent[start + 7] == (~sum & 0xffff));
  }
}

TEST_CASE("segmentation is left to the device") {
  for (const bool six : {false, true}) {
    NetHeader header = checksum(six, 6);
    header.gsoType = six ? kTcp6 : kTcp4;
    header.gsoSize = 1400;
    const Bytes bytes = internet(six, 6, 20000);
    const Packet packet = write(frameOf(bytes), header, 9);
    REQUIRE(packet);
    CHECK((packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0);
    CHECK(((packet->ol_flags & RTE_MBUF_F_TX_IP_CKSUM) != 0) == !six);
    CHECK(packet->tso_segsz == 1400);
    CHECK(packet->l4_len == 20);
    CHECK(bytesOf(packet) == tagged(bytes, 9));
  }
}

TEST_CASE("a frame to be segmented that no device can segment is lost, not for want of memory") {
  NetHeader header = checksum(false, 6);
  header.gsoType = kTcp4;
  header.gsoSize = 1400;
  Bytes bytes = internet(false, 6, 2000);
  bytes[46] = 0xf0;  // options beyond the end
  bytes.resize(80);
  const Frame frame = frameOf(bytes);
  bool noMemory = true;
  CHECK(writePacket(pool(), {&frame, header, 0}, noMemory) == nullptr);
  CHECK_FALSE(noMemory);
}

TEST_CASE("without buffers there is no packet, and nothing leaks") {
  const Bytes bytes = pattern(5000);
  const Frame frame = frameOf(bytes);
  const unsigned before = rte_mempool_avail_count(pool());
  {
    std::vector<Packet> packets;
    bool noMemory = false;
    while (!noMemory)
      packets.emplace_back(writePacket(pool(), {&frame, {}, 0}, noMemory), rte_pktmbuf_free);
    CHECK(packets.size() > before / 3 - 1);
  }
  CHECK(rte_mempool_avail_count(pool()) == before);
}
