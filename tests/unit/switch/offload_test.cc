// Pods' requests in net headers: checked, and carried out by the switch if the receiver can't.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "deviceplugin/datapath/switch/offload/checksum.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/offload/wire_fields.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "tests/unit/switch/packets.h"

using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using vdpa::virtqueue::Frame;
using vdpa::virtqueue::NetHeader;
namespace gso = vdpa::virtqueue::gso;
namespace net_flag = vdpa::virtqueue::net_flag;

namespace {

constexpr Offloads kAll = Offloads::kChecksum | Offloads::kTso4 | Offloads::kTso6 | Offloads::kEcn |
                          Offloads::kUso4 | Offloads::kUso6;

Bytes bytesOf(std::initializer_list<unsigned> values) {
  Bytes bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

Frame frameIn(const Bytes& bytes) {
  return vdpa::virtqueue::frameOf(bytes.data(), static_cast<uint32_t>(bytes.size()));
}

NetHeader checksumOf(const Packet& packet) {
  NetHeader header;
  header.flags = net_flag::kNeedsChecksum;
  header.checksumStart = static_cast<uint16_t>(packet.transport);
  header.checksumOffset = static_cast<uint16_t>(packet.checksum - packet.transport);
  return header;
}

NetHeader segmentsOf(const Packet& packet, uint8_t type, unsigned size) {
  NetHeader header = checksumOf(packet);
  header.gsoType = type;
  header.gsoSize = static_cast<uint16_t>(size);
  header.headerLength = 7;  // wrong, which must not matter
  return header;
}

uint8_t typeOf(const Kind& kind) {
  return !kind.tcp ? gso::kUdp : kind.ipv6 ? gso::kTcp6 : gso::kTcp4;
}

bool accepted(const Packet& packet, const NetHeader& header, Offloads sender = kAll) {
  OffloadRequest request;
  return readRequest(header, frameIn(packet.bytes), sender, request);
}

OffloadRequest read(const Packet& packet, const NetHeader& header) {
  OffloadRequest request;
  REQUIRE(readRequest(header, frameIn(packet.bytes), kAll, request));
  return request;
}

std::span<const std::byte> bytesOf(const Finisher::Finished& finished) {
  return {finished.frame.data, finished.frame.length};
}

bool isEmpty(const NetHeader& header) {
  const auto bytes = std::as_bytes(std::span(&header, 1));
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TEST_CASE("The sum of RFC 1071's example") {
  const Bytes bytes = bytesOf({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7});
  CHECK(fold(sumOf(bytes)) == asSum(0xddf2));
}

TEST_CASE("The checksum of a well-known IPv4 header") {
  const Bytes header = bytesOf({0x45, 0,    0,    0x73, 0, 0, 0x40, 0,    0x40, 0x11,
                                0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,    0xc7});
  CHECK(fold(sumOf(header)) == 0xffff);
}

TEST_CASE("Sums of any length, and of bytes that carry most") {
  const unsigned length = GENERATE(0u, 1u, 2u, 3u, 7u, 8u, 9u, 31u, 32u, 33u, 63u, 1459u, 65535u);
  const auto value = GENERATE(std::byte{0xff}, std::byte{0x80}, std::byte{0x01});
  Bytes bytes(length, value);
  if (length > 5) bytes[4] = std::byte{0x5a};
  CHECK(fold(sumOf(bytes)) % 0xffff == asSum(slowSum(bytes)) % 0xffff);
}

TEST_CASE("A sum loses what was part of it") {
  const Bytes both = bytesOf({0x12, 0x34, 0xff, 0xf0}), one = bytesOf({0xff, 0xf0});
  CHECK(fold(without(sumOf(both), fold(sumOf(one)))) == asSum(0x1234));
}

TEST_CASE("A frame whose checksum is missing is passed on, or completed") {
  const Kind kind = GENERATE(Kind{}, Kind{.tcp = false}, Kind{.ipv6 = true}, Kind{.tags = 1},
                             Kind{.ipv6 = true, .tcp = false, .tags = 2});
  const size_t payload = GENERATE(0u, 1u, 5u, 6u, 1400u, 1401u);
  const Packet packet = makePacket(kind, payload);
  NetHeader header = checksumOf(packet);
  header.flags |= net_flag::kDataValid | 4;  // RSC_INFO
  header.headerLength = 999;
  header.gsoSize = 999;
  header.buffers = 9;
  const OffloadRequest request = read(packet, header);
  CHECK(request.needed == Offloads::kChecksum);
  CHECK(request.segmentLength == packet.bytes.size());
  CHECK(request.wireBytes == packet.bytes.size());
  CHECK(request.header.flags == net_flag::kNeedsChecksum);
  CHECK(request.header.checksumStart == packet.transport);
  CHECK(request.header.gsoSize == 0);
  CHECK(request.header.headerLength == 0);
  CHECK(request.header.buffers == 0);

  Finisher finisher;
  const auto finished = finisher.finish(frameIn(packet.bytes), request, Offloads::kNone);
  REQUIRE(finished.size() == 1);
  CHECK(isEmpty(finished[0].header));
  const auto bytes = bytesOf(finished[0]);
  REQUIRE(bytes.size() == packet.bytes.size());
  const unsigned pseudo = pseudoSum(packet.bytes, packet.network, kind.ipv6, kind.tcp,
                                    packet.bytes.size() - packet.transport);
  CHECK(slowSum(bytes.subspan(packet.transport), pseudo) == 0xffff);
  Bytes expected = packet.bytes;
  put16(expected, packet.checksum, field16(bytes, packet.checksum));
  CHECK(std::equal(bytes.begin(), bytes.end(), expected.begin()));
}

TEST_CASE("A receiver that has what a frame needs gets it as it is") {
  const Packet packet = makePacket({}, 3000);
  const OffloadRequest request = read(packet, segmentsOf(packet, gso::kTcp4, 1000));
  Finisher finisher;
  const auto finished =
      finisher.finish(frameIn(packet.bytes), request, Offloads::kChecksum | Offloads::kTso4);
  REQUIRE(finished.size() == 1);
  CHECK(finished[0].header.gsoSize == 1000);
  CHECK(std::equal(packet.bytes.begin(), packet.bytes.end(), bytesOf(finished[0]).begin()));
}

TEST_CASE("A UDP checksum of zero is stored as its other form") {
  Packet packet = makePacket({.tcp = false}, 2);
  // The last word makes the sum 0xffff.
  put16(packet.bytes, packet.payload, 0);
  const unsigned sum = slowSum(std::span(packet.bytes).subspan(packet.transport));
  put16(packet.bytes, packet.payload, ~sum & 0xffff);
  Finisher finisher;
  const auto finished =
      finisher.finish(frameIn(packet.bytes), read(packet, checksumOf(packet)), Offloads::kNone);
  CHECK(field16(bytesOf(finished[0]), packet.checksum) == 0xffff);
}

TEST_CASE("Segments of any kind of packet") {
  const bool ipv6 = GENERATE(false, true), tcp = GENERATE(true, false);
  Kind kind{.ipv6 = ipv6, .tcp = tcp};
  SECTION("plain") {}
  SECTION("tagged") {
    kind.tags = 1;
  }
  SECTION("with options: headers beyond the frame's head") {
    kind.ipOptions = 40;
    kind.tcpOptions = 12;
  }
  const unsigned size = GENERATE(101u, 1448u);
  const size_t payload = GENERATE(1449u, 4344u, 65000u);
  const bool checksums = GENERATE(false, true);
  const Packet packet = makePacket(kind, payload);
  const OffloadRequest request = read(packet, segmentsOf(packet, typeOf(kind), size));
  const size_t count = (payload + size - 1) / size;
  CHECK(request.header.headerLength == packet.payload);
  CHECK(request.segments == count);
  CHECK(request.segmentLength == packet.payload + size);
  CHECK(request.wireBytes == packet.bytes.size() + (count - 1) * packet.payload);

  Finisher finisher;
  const auto finished = finisher.finish(frameIn(packet.bytes), request,
                                        checksums ? Offloads::kChecksum : Offloads::kNone);
  REQUIRE(finished.size() == count);
  const unsigned pseudo = pseudoSum(packet.bytes, packet.network, kind.ipv6, kind.tcp, 0);
  size_t offset = 0;
  for (unsigned i = 0; i < count; ++i) {
    const auto bytes = bytesOf(finished[i]);
    REQUIRE(bytes.size() == packet.payload + std::min<size_t>(size, payload - offset));
    REQUIRE(faultOf(bytes, packet.bytes, packet.network, packet.transport, packet.payload,
                    kind.ipv6, kind.tcp, i, offset, i + 1 == count, checksums, pseudo) == "");
    REQUIRE(finished[i].header.flags == (checksums ? net_flag::kNeedsChecksum : 0));
    REQUIRE(finished[i].header.checksumStart == (checksums ? packet.transport : 0));
    REQUIRE(finished[i].header.gsoType == gso::kNone);
    offset += bytes.size() - packet.payload;
  }
  CHECK(offset == payload);
}

TEST_CASE("Extension headers are told, of packets that are to be segmented") {
  const bool ipv6 = GENERATE(false, true);
  const unsigned options = GENERATE(0u, 8u);
  const Kind kind{.ipv6 = ipv6, .ipOptions = options};
  const Packet packet = makePacket(kind, 4000);
  CHECK(read(packet, segmentsOf(packet, typeOf(kind), 1000)).extensions == (ipv6 && options > 0));
  CHECK_FALSE(read(packet, checksumOf(packet)).extensions);
}

TEST_CASE("Of TCP segments only the first has CWR, and only the last PSH and FIN") {
  const Packet packet = makePacket({}, 300);
  const OffloadRequest request =
      read(packet, segmentsOf(packet, static_cast<uint8_t>(gso::kTcp4 | gso::kEcn), 100));
  CHECK(request.needed == (Offloads::kChecksum | Offloads::kTso4 | Offloads::kEcn));
  Finisher finisher;
  const auto finished =
      finisher.finish(frameIn(packet.bytes), request, Offloads::kChecksum | Offloads::kTso4);
  REQUIRE(finished.size() == 3);
  std::vector<unsigned> flags;
  for (const auto& segment : finished)
    flags.push_back(byteOf(bytesOf(segment), packet.transport + 13));
  CHECK(flags == std::vector<unsigned>{0x90, 0x10, 0x19});
}

TEST_CASE("A frame with less payload than a segment lacks only its checksum") {
  const Packet packet = makePacket({}, 100);
  const OffloadRequest request =
      read(packet, segmentsOf(packet, gso::kTcp4, GENERATE(100u, 1448u)));
  CHECK(request.needed == Offloads::kChecksum);
  CHECK(request.header.gsoType == gso::kNone);
  CHECK(request.segmentLength == packet.bytes.size());
}

TEST_CASE("What only a device may say is ignored, of a pod that says it") {
  const Packet packet = makePacket({}, 100);
  NetHeader header;
  header.flags = static_cast<uint8_t>(GENERATE(net_flag::kDataValid, uint8_t{4}, uint8_t{0xfa}));
  header.checksumStart = 34;
  CHECK(isEmpty(read(packet, header).header));
  CHECK(read(packet, header).needed == Offloads::kNone);
}

TEST_CASE("A checksum outside its frame, or in the part that is decided on, is refused") {
  const Packet packet = makePacket({.tcp = false, .tags = 1}, 10);  // 18 + 20 + 8 + 10 bytes
  NetHeader header = checksumOf(packet);
  CHECK(accepted(packet, header));
  const auto at = [&](unsigned start, unsigned offset) {
    header.checksumStart = static_cast<uint16_t>(start);
    header.checksumOffset = static_cast<uint16_t>(offset);
    return accepted(packet, header);
  };
  CHECK(at(18, 36));
  CHECK_FALSE(at(18, 37));  // its second byte is outside
  CHECK_FALSE(at(55, 0));
  CHECK_FALSE(at(56, 0));
  CHECK_FALSE(at(65535, 65535));
  CHECK_FALSE(at(18, 65535));
  CHECK_FALSE(at(0, 6));    // the source address
  CHECK_FALSE(at(14, 40));  // the tag
  CHECK_FALSE(at(17, 40));
}

TEST_CASE("A frame too short for its Ethernet header has no checksum") {
  Packet packet = makePacket({}, 0);
  packet.bytes.resize(13);
  NetHeader header;
  header.flags = net_flag::kNeedsChecksum;
  CHECK_FALSE(accepted(packet, header));
}

TEST_CASE("Segments that don't fit their frame are refused") {
  Packet packet = makePacket({}, 3000);
  NetHeader header = segmentsOf(packet, gso::kTcp4, 1000);
  REQUIRE(accepted(packet, header));
  SECTION("without a checksum to complete") {
    header.flags = 0;
  }
  SECTION("of no size") {
    header.gsoSize = 0;
  }
  SECTION("larger than an IP packet") {
    header.gsoSize = 65535 - 39;
  }
  SECTION("of another version of IP") {
    header.gsoType = gso::kTcp6;
  }
  SECTION("of another protocol") {
    header.gsoType = gso::kUdp;
  }
  SECTION("as fragments of UDP") {
    header.gsoType = gso::kUfo;
  }
  SECTION("of an unknown type") {
    header.gsoType = 2;
  }
  SECTION("of no type, with ECN") {
    header.gsoType = gso::kEcn;
  }
  SECTION("with another checksum") {
    header.checksumOffset = 6;
  }
  SECTION("with another start") {
    header.checksumStart = 33;
  }
  SECTION("an IP fragment") {
    put16(packet.bytes, packet.network + 6, 0x2000);
  }
  SECTION("not IP") {
    put16(packet.bytes, 12, 0x0806);
  }
  SECTION("an IP header that is too short") {
    packet.bytes[14] = std::byte{0x44};
  }
  SECTION("a TCP header that is too short") {
    packet.bytes[46] = std::byte{0x40};
  }
  SECTION("a TCP header beyond the frame") {
    packet.bytes.resize(60);
    packet.bytes[46] = std::byte{0xf0};
  }
  CHECK_FALSE(accepted(packet, header));
}

TEST_CASE("A frame for more segments than are worth it is refused") {
  const Packet packet = makePacket({}, 20u * kMaxSegments);
  CHECK(accepted(packet, segmentsOf(packet, gso::kTcp4, 20)));
  CHECK_FALSE(accepted(packet, segmentsOf(packet, gso::kTcp4, 19)));
}

TEST_CASE("A packet of more than 64 KiB is refused") {
  const Packet fits = makePacket({}, 65535 - 40), larger = makePacket({}, 65535 - 39);
  CHECK(accepted(fits, segmentsOf(fits, gso::kTcp4, 1448)));
  CHECK_FALSE(accepted(larger, segmentsOf(larger, gso::kTcp4, 1448)));
}

TEST_CASE("Extension headers without an end are refused") {
  const Packet packet = makePacket({.ipv6 = true, .ipOptions = 8 * GENERATE(1u, 20u, 28u)}, 3000);
  CHECK(accepted(packet, segmentsOf(packet, gso::kTcp6, 1000)) == (packet.payload <= 256));
}

TEST_CASE("What the sender has not agreed on is refused") {
  const Packet tcp = makePacket({}, 3000), udp = makePacket({.ipv6 = true, .tcp = false}, 3000);
  const Offloads checksum = Offloads::kChecksum;
  CHECK_FALSE(accepted(tcp, checksumOf(tcp), Offloads::kTso4));
  CHECK_FALSE(accepted(tcp, segmentsOf(tcp, gso::kTcp4, 1000), checksum | Offloads::kTso6));
  CHECK_FALSE(accepted(tcp, segmentsOf(tcp, gso::kTcp4, 5000), checksum));
  CHECK_FALSE(accepted(tcp, segmentsOf(tcp, static_cast<uint8_t>(gso::kTcp4 | gso::kEcn), 1000),
                       checksum | Offloads::kTso4));
  CHECK_FALSE(accepted(udp, segmentsOf(udp, gso::kUdp, 1000), checksum | Offloads::kUso4));
  CHECK(accepted(udp, segmentsOf(udp, gso::kUdp, 1000), checksum | Offloads::kUso6));
}

TEST_CASE("Headers that their sender changes after they were checked end in no frame") {
  Packet packet = makePacket({.ipv6 = true, .tcpOptions = 20}, 3000);
  const Frame frame = frameIn(packet.bytes);
  OffloadRequest request;
  REQUIRE(readRequest(segmentsOf(packet, gso::kTcp6, 1000), frame, kAll, request));
  Finisher finisher;
  CHECK(finisher.finish(frame, request, Offloads::kNone).size() == 3);
  packet.bytes[54 + 12] = std::byte{0x50};  // TCP's data offset, behind the head
  CHECK(finisher.finish(frame, request, Offloads::kNone).empty());
}
