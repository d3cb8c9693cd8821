// Where the device stopped in a ring whose engine died, found in the ring itself: the engine's
// answer to GET_VRING_BASE, had it lived.
#pragma once

#include <cstdint>

#include "deviceplugin/datapath/vhost_user/vhost_device.h"

namespace vdpa::vhost_user {

// Returns the value for SET_VRING_BASE. Buffers that the engine had taken and not yet returned are
// given to the next engine again. Throws ProtocolError when the ring contradicts itself, or cannot
// be read: only the driver's reset can help then.
uint32_t recoverPosition(const VhostDevice& device, size_t index);

}  // namespace vdpa::vhost_user
