// Feature bits of virtio network devices by the names that iproute2's `vdpa mgmtdev show` prints.
//
// Source: print_net_features() in iproute2's vdpa/vdpa.c; the bits are those of
// include/uapi/linux/virtio_net.h, virtio_config.h and virtio_ring.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace vdpa {

constexpr uint64_t featureBit(unsigned number) {
  return uint64_t{1} << number;
}

inline constexpr uint64_t kFeatureMtu = featureBit(3);
inline constexpr uint64_t kFeatureMac = featureBit(5);
inline constexpr uint64_t kFeatureControlQueue = featureBit(17);
inline constexpr uint64_t kFeatureMultiqueue = featureBit(22);
inline constexpr uint64_t kFeatureVersion1 = featureBit(32);
inline constexpr uint64_t kFeatureAccessPlatform = featureBit(33);
inline constexpr uint64_t kFeatureRingPacked = featureBit(34);
inline constexpr uint64_t kFeatureNotificationData = featureBit(38);

// The bit of "MRG_RXBUF", or of "bit_40", as iproute2 prints bits without a name; nothing for any
// other word.
std::optional<uint64_t> parseFeature(const std::string& name);

// "MTU, MAC, CTRL_VQ", in the order of the bits.
std::string featureNames(uint64_t features);

// All names, for messages.
std::string allFeatureNames();

}  // namespace vdpa
