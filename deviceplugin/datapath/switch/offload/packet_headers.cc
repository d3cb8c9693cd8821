#include "deviceplugin/datapath/switch/offload/packet_headers.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "deviceplugin/datapath/switch/offload/wire_fields.h"

namespace vdpa::vswitch {
namespace {

constexpr uint16_t kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd, kTypeVlan = 0x8100, kTypeOuter = 0x88a8;
constexpr uint32_t kMinEthernet = 14, kTag = 4;
constexpr uint32_t kMinIpv4 = 20, kIpv6 = 40, kMinTcp = 20, kUdp = 8;
constexpr uint16_t kFragmented = 0x3fff;  // "more fragments", or not the first (RFC 791)

// Protocols and extension headers (RFC 8200; the others can't be followed by segments).
constexpr uint8_t kHopByHop = 0, kProtocolTcp = 6, kProtocolUdp = 17, kRouting = 43,
                  kDestination = 60;

// Sets `transport`, and the protocol found there.
std::optional<uint8_t> passIpv4(std::span<const std::byte> front, PacketHeaders& found) {
  const std::byte* const ip = front.data() + found.network;
  if (front.size() < found.network + kMinIpv4 || byteAt(ip) >> 4 != 4) return std::nullopt;
  const uint32_t length = (byteAt(ip) & 15) * 4;
  if (length < kMinIpv4 || (wordAt(ip + 6) & kFragmented) != 0) return std::nullopt;
  found.transport = found.network + length;
  return byteAt(ip + 9);
}

std::optional<uint8_t> passIpv6(std::span<const std::byte> front, PacketHeaders& found) {
  const std::byte* const ip = front.data() + found.network;
  if (front.size() < found.network + kIpv6 || byteAt(ip) >> 4 != 6) return std::nullopt;
  found.transport = found.network + kIpv6;
  uint8_t next = byteAt(ip + 6);
  while (next == kHopByHop || next == kRouting || next == kDestination) {
    // Each has at least 8 bytes, so this ends with `front`.
    if (front.size() < found.transport + 2) return std::nullopt;
    const std::byte* const extension = front.data() + found.transport;
    next = byteAt(extension);
    found.transport += (byteAt(extension + 1) + 1) * 8;
  }
  return next;
}

}  // namespace

std::optional<uint32_t> ethernetLength(std::span<const std::byte> front) {
  uint32_t length = kMinEthernet;
  for (int tags = 0; front.size() >= length; ++tags) {
    const uint16_t type = wordAt(front.data() + length - 2);
    if (tags == 2 || (type != kTypeVlan && type != kTypeOuter)) return length;
    length += kTag;
  }
  return std::nullopt;
}

std::optional<PacketHeaders> findHeaders(std::span<const std::byte> front) {
  const auto ethernet = ethernetLength(front);
  if (!ethernet) return std::nullopt;
  PacketHeaders found;
  found.network = *ethernet;
  const uint16_t type = wordAt(front.data() + *ethernet - 2);
  if (type != kTypeIpv4 && type != kTypeIpv6) return std::nullopt;
  found.ipv6 = type == kTypeIpv6;
  const auto protocol = found.ipv6 ? passIpv6(front, found) : passIpv4(front, found);
  found.tcp = protocol == kProtocolTcp;
  if (!found.tcp && protocol != kProtocolUdp) return std::nullopt;
  uint32_t length = kUdp;
  if (found.tcp) {
    if (front.size() < found.transport + kMinTcp) return std::nullopt;
    length = (byteAt(front.data() + found.transport + 12) >> 4) * 4u;
    if (length < kMinTcp) return std::nullopt;
  }
  found.payload = found.transport + length;
  if (front.size() < found.payload) return std::nullopt;
  return found;
}

}  // namespace vdpa::vswitch
