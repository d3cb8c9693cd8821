// The device's side of a virtqueue, as a front-end has set it up.
#pragma once

#include <cstddef>

#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/ports/guest_memory.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"

namespace vdpa::vswitch {

// Even virtqueues are those on which the pod receives (virtio 1.2, 5.1.2).
constexpr bool isReceive(size_t index) {
  return index % 2 == 0;
}

// Of a started ring, in memory that the result borrows. Throws virtqueue::VirtqueueError that names
// the ring.
Ring makeRing(const vhost_user::VhostDevice& device, size_t index, const GuestMemory& memory);

}  // namespace vdpa::vswitch
