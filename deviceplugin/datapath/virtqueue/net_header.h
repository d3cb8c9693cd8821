// The header before each packet in a buffer of a network device (virtio 1.2, 5.1.6).
#pragma once

#include <cstdint>

namespace vdpa::virtqueue {

struct NetHeader {
  uint8_t flags = 0;
  uint8_t gsoType = 0;
  uint16_t headerLength = 0;
  uint16_t gsoSize = 0;
  uint16_t checksumStart = 0;
  uint16_t checksumOffset = 0;
  uint16_t buffers = 0;  // to a driver: how many the packet takes (5.1.6.4); from one: unused
};
static_assert(sizeof(NetHeader) == 12);

// NetHeader::flags
namespace net_flag {
// The checksum at checksumStart + checksumOffset holds the sum of the pseudo header; the sum of
// everything from checksumStart on is missing.
inline constexpr uint8_t kNeedsChecksum = 1;
inline constexpr uint8_t kDataValid = 2;  // only to a driver: its checksum was found to be right
}  // namespace net_flag

// NetHeader::gsoType: a frame that is to be cut into segments of gsoSize bytes of payload.
namespace gso {
inline constexpr uint8_t kNone = 0;
inline constexpr uint8_t kTcp4 = 1;
inline constexpr uint8_t kUfo = 3;  // one datagram, in IP fragments
inline constexpr uint8_t kTcp6 = 4;
inline constexpr uint8_t kUdp = 5;     // several datagrams
inline constexpr uint8_t kEcn = 0x80;  // with kTcp4 or kTcp6: CWR is set, in the first segment only
}  // namespace gso

// How long it is: without VIRTIO_F_VERSION_1 and VIRTIO_NET_F_MRG_RXBUF it has no `buffers`
// (5.1.6.1).
inline constexpr uint32_t kHeaderSize = 12;
inline constexpr uint32_t kLegacyHeaderSize = 10;

}  // namespace vdpa::virtqueue
