// Packets made and checked byte by byte, the way the RFCs put it: shares nothing with the code that
// is tested.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace vdpa::vswitch::test {

using Bytes = std::vector<std::byte>;

inline unsigned byteOf(std::span<const std::byte> bytes, size_t at) {
  return std::to_integer<unsigned>(bytes[at]);
}
inline unsigned field16(std::span<const std::byte> bytes, size_t at) {
  return byteOf(bytes, at) << 8 | byteOf(bytes, at + 1);
}
inline uint32_t field32(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint32_t>(field16(bytes, at)) << 16 | field16(bytes, at + 2);
}
inline void put16(std::span<std::byte> bytes, size_t at, unsigned value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value);
}

// RFC 1071, word by word, with the carry added at once. `sum` is what was summed up before.
inline unsigned slowSum(std::span<const std::byte> bytes, unsigned sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    sum += i % 2 == 0 ? byteOf(bytes, i) << 8 : byteOf(bytes, i);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return sum;
}

struct Kind {
  bool ipv6 = false;
  bool tcp = true;
  unsigned tags = 0;
  unsigned ipOptions = 0;   // bytes: of IPv4 options, or of IPv6 extension headers (by 8)
  unsigned tcpOptions = 0;  // bytes
};

struct Packet {
  Bytes bytes;
  size_t network = 0, transport = 0, payload = 0;
  size_t checksum = 0;  // where the transport's is
};

inline unsigned pseudoSum(std::span<const std::byte> bytes, size_t network, bool ipv6, bool tcp,
                          size_t datagram) {
  const size_t addresses = network + (ipv6 ? 8 : 12);
  unsigned sum = slowSum(bytes.subspan(addresses, ipv6 ? 32 : 8));
  std::array<std::byte, 4> rest{};
  put16(rest, 0, tcp ? 6 : 17);
  put16(rest, 2, static_cast<unsigned>(datagram));
  return slowSum(rest, sum);
}

// With the pseudo header's sum in place of the transport's checksum.
inline Packet makePacket(const Kind& kind, size_t payload) {
  Packet packet;
  Bytes& bytes = packet.bytes;
  const auto add = [&](std::initializer_list<unsigned> values) {
    for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  };
  const unsigned transport = kind.tcp ? 20 + kind.tcpOptions : 8;
  const auto datagram = static_cast<unsigned>(transport + payload);
  add({2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1});
  for (unsigned i = 0; i < kind.tags; ++i) add({0x81, 0, 0, 100 + i});
  const unsigned protocol = kind.tcp ? 6 : 17;
  if (kind.ipv6) {
    add({0x86, 0xdd});
    packet.network = bytes.size();
    const unsigned length = datagram + kind.ipOptions;
    add({0x60, 0, 0, 0, length >> 8, length, kind.ipOptions ? 60 : protocol, 64});
    for (unsigned i = 0; i < 32; ++i) add({i < 16 ? 0xfd + i : 0x20 + i});
    if (kind.ipOptions) add({protocol, kind.ipOptions / 8 - 1});
    for (unsigned i = 2; i < kind.ipOptions; ++i) add({0});
  } else {
    add({0x08, 0x00});
    packet.network = bytes.size();
    const unsigned header = 20 + kind.ipOptions, length = datagram + header;
    add({0x40 | header / 4, 0, length >> 8, length, 0xff, 0xfe, 0, 0, 64, protocol, 0, 0});
    add({10, 0, 0, 1, 10, 0, 0, 2});
    for (unsigned i = 0; i < kind.ipOptions; ++i) add({1});
    put16(bytes, packet.network + 10,
          ~slowSum(std::span(bytes).subspan(packet.network, header)) & 0xffff);
  }
  packet.transport = bytes.size();
  add({0x30, 0x39, 0, 80});
  if (kind.tcp) {
    // A sequence number that wraps; CWR, ACK, PSH and FIN.
    add({0xff, 0xff, 0xff, 0, 0, 0, 0, 9, transport / 4 << 4, 0x99, 1, 0, 0, 0, 0, 0});
    for (unsigned i = 0; i < kind.tcpOptions; ++i) add({1});
    packet.checksum = packet.transport + 16;
  } else {
    add({datagram >> 8, datagram, 0, 0});
    packet.checksum = packet.transport + 6;
  }
  packet.payload = bytes.size();
  for (size_t i = 0; i < payload; ++i) bytes.push_back(static_cast<std::byte>(i * 7 + (i >> 8)));
  put16(bytes, packet.checksum, pseudoSum(bytes, packet.network, kind.ipv6, kind.tcp, datagram));
  return packet;
}

// Checks frame number `number` of those that `whole` was cut into, whose payload begins at `offset`
// of the whole one's. Returns the error in words; empty: none. `partial`: the checksum is left to
// the receiver. The transport's checksum is compared with `pseudo`, the sum of the pseudo header
// without the length, and everything else with `whole`.
inline std::string faultOf(std::span<const std::byte> segment, std::span<const std::byte> whole,
                           size_t network, size_t transport, size_t payload, bool ipv6, bool tcp,
                           unsigned number, size_t offset, bool last, bool partial,
                           unsigned pseudo) {
  const size_t datagram = segment.size() - transport;
  for (size_t i = payload; i < segment.size(); ++i)
    if (segment[i] != whole[offset + i]) return "payload";
  for (size_t i = 0; i < network; ++i)
    if (segment[i] != whole[i]) return "Ethernet header";
  if (ipv6) {
    if (field16(segment, network + 4) != segment.size() - network - 40) return "IPv6 length";
  } else {
    if (field16(segment, network + 2) != segment.size() - network) return "IPv4 length";
    if (field16(segment, network + 4) != ((field16(whole, network + 4) + number) & 0xffff))
      return "IPv4 identification";
    if (slowSum(segment.subspan(network, transport - network)) != 0xffff) return "IPv4 checksum";
  }
  if (tcp) {
    if (field32(segment, transport + 4) !=
        static_cast<uint32_t>(field32(whole, transport + 4) + offset))
      return "sequence number";
    unsigned flags = byteOf(whole, transport + 13);
    if (!last) flags &= ~9u;
    if (number > 0) flags &= ~0x80u;
    if (byteOf(segment, transport + 13) != flags) return "TCP flags";
  } else if (field16(segment, transport + 4) != datagram) {
    return "UDP length";
  }
  std::array<std::byte, 2> length{};
  put16(length, 0, static_cast<unsigned>(datagram));
  pseudo = slowSum(length, pseudo);
  const size_t at = transport + (tcp ? 16 : 6);
  const unsigned checksum = field16(segment, at);
  if (partial) return checksum % 0xffff == pseudo % 0xffff ? "" : "pseudo header's sum";
  if (!tcp && checksum == 0) return "UDP checksum of zero";
  return slowSum(segment.subspan(transport), pseudo) == 0xffff ? "" : "transport checksum";
}

}  // namespace vdpa::vswitch::test
