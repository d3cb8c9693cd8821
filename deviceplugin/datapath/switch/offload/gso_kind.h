// Compares the gso type of a net header with the headers of its frame.
#pragma once

#include <cstdint>
#include <optional>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/offload/packet_headers.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {

inline constexpr uint16_t kTcpChecksum = 16, kUdpChecksum = 6;  // offsets in their headers

inline uint16_t checksumOffsetOf(const PacketHeaders& headers) {
  return headers.tcp ? kTcpChecksum : kUdpChecksum;
}

// The offloads that a receiver of such a frame needs; none if the type does not fit these headers.
inline std::optional<Offloads> needsOf(uint8_t gsoType, const PacketHeaders& headers) {
  namespace gso = virtqueue::gso;
  const bool ecn = (gsoType & gso::kEcn) != 0;
  switch (gsoType & ~gso::kEcn) {
    case gso::kTcp4:
    case gso::kTcp6: {
      if (!headers.tcp || headers.ipv6 != ((gsoType & ~gso::kEcn) == gso::kTcp6))
        return std::nullopt;
      const Offloads tso = headers.ipv6 ? Offloads::kTso6 : Offloads::kTso4;
      return Offloads::kChecksum | tso | (ecn ? Offloads::kEcn : Offloads::kNone);
    }
    case gso::kUdp:
      if (headers.tcp || ecn) return std::nullopt;
      return Offloads::kChecksum | (headers.ipv6 ? Offloads::kUso6 : Offloads::kUso4);
    default:
      return std::nullopt;
  }
}

}  // namespace vdpa::vswitch
