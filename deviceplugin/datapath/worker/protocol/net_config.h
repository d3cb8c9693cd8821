// The configuration space of a virtio network device (virtio 1.2, 5.1.4), for front-ends that ask
// with GET_CONFIG.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace vdpa::worker {

struct NetConfig {
  std::array<uint8_t, 6> mac{};
  uint16_t status = 1;  // VIRTIO_NET_S_LINK_UP
  uint16_t maxQueuePairs = 1;
  uint16_t mtu = 1500;
};
static_assert(sizeof(NetConfig) == 12);  // laid out as the driver reads it, little endian

// "02:00:00:00:00:01". Throws std::invalid_argument with what was expected.
std::array<uint8_t, 6> parseMac(const std::string& text);
std::string formatMac(const std::array<uint8_t, 6>& mac);

}  // namespace vdpa::worker
