// The configuration space of a virtio network device (virtio 1.2, 5.1.4), for front-ends that ask
// with GET_CONFIG.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/mac_address.h"

namespace vdpa::worker {

struct NetConfig {
  MacAddress mac;
  uint16_t status = 1;  // VIRTIO_NET_S_LINK_UP
  uint16_t maxQueuePairs = 1;
  uint16_t mtu = 1500;
};
static_assert(sizeof(NetConfig) == 12);  // laid out as the driver reads it, little endian

}  // namespace vdpa::worker
