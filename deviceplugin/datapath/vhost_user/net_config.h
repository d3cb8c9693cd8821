// The configuration space of a virtio network device (virtio 1.2, 5.1.4), for front-ends that ask
// with GET_CONFIG. Some read more than these fields: what follows is zero, since the features to
// which those fields belong are not offered.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/mac_address.h"

namespace vdpa::vhost_user {

inline constexpr uint16_t kLinkUp = 1;  // VIRTIO_NET_S_LINK_UP

struct NetConfig {
  MacAddress mac;
  uint16_t status = kLinkUp;
  uint16_t maxQueuePairs = 1;
  uint16_t mtu = 1500;
};
static_assert(sizeof(NetConfig) == 12);  // laid out as the driver reads it, little endian

}  // namespace vdpa::vhost_user
