// Where the headers of a packet are: Ethernet with VLAN tags, IPv4 with options or IPv6 with
// extension headers, TCP or UDP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace vdpa::vswitch {

// Offsets in bytes from the beginning of the frame.
struct PacketHeaders {
  // The most bytes that are searched for headers: enough for two tags, IPv6 with extension headers,
  // and TCP with options.
  static constexpr size_t kMaxSize = 256;

  bool ipv6 = false;
  bool tcp = false;      // else UDP
  uint32_t network = 0;  // the IP header
  uint32_t transport = 0;
  uint32_t payload = 0;  // behind the transport header

  bool operator==(const PacketHeaders&) const = default;
};

// The length of the Ethernet header with up to two VLAN tags, if the frame has that many bytes.
// `front` is the frame's beginning.
std::optional<uint32_t> ethernetLength(std::span<const std::byte> front);

// Finds the headers of a whole TCP segment or UDP datagram, which must lie within `front`. Nothing
// for all other packets, such as IP fragments.
std::optional<PacketHeaders> findHeaders(std::span<const std::byte> front);

}  // namespace vdpa::vswitch
