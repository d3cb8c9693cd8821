// Work that one side of a virtqueue may leave to the other: checksums and segmentation (virtio 1.2,
// 5.1.3). A set of bits, the same for frames that a pod sends (VIRTIO_NET_F_CSUM, HOST_*) and for
// those that it receives (GUEST_*).
#pragma once

#include <cstdint>

namespace vdpa::vswitch {

enum class Offloads : uint8_t {
  kNone = 0,
  kChecksum = 1,  // CSUM; GUEST_CSUM
  kTso4 = 2,      // HOST_TSO4; GUEST_TSO4
  kTso6 = 4,
  kEcn = 8,    // segments of which the first has CWR set: HOST_ECN; GUEST_ECN
  kUso4 = 16,  // HOST_USO; GUEST_USO4
  kUso6 = 32,
};

constexpr Offloads operator|(Offloads a, Offloads b) {
  return static_cast<Offloads>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}
// Whether `has` has all that `needed` has.
constexpr bool covers(Offloads has, Offloads needed) {
  return (static_cast<uint8_t>(needed) & ~static_cast<uint8_t>(has)) == 0;
}

}  // namespace vdpa::vswitch
