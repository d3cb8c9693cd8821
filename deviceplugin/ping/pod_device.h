// A device as a pod finds it below /run/vdpa.
#pragma once

#include <cstdint>
#include <string>

#include "common/mac_address.h"
#include "deviceplugin/guest/guest.h"

namespace vdpa::ping {

struct PodDevice {
  std::string id, socket, network, backend;
  MacAddress mac;
  uint16_t vlan = 0;  // of the pod's untagged frames, on the network; 0: none
  uint32_t mtu = 0, queueSize = 0;
};

// The device `id`, or without one the only device below `directory` (/run/vdpa in a pod). Throws
// std::runtime_error, with a remedy, if it has no socket or no untagged frames, if none is there,
// or if several are and `id` is empty.
PodDevice findDevice(const std::string& directory, const std::string& id);

// A driver for it: rings of at most 1,024 entries, and buffers for its MTU.
guest::GuestOptions driverOptions(const PodDevice& device);

}  // namespace vdpa::ping
