// The device's position in a packed ring, from the ring's descriptors alone (virtio 1.2, 2.8).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::vhost_user {

struct PackedPosition {
  uint32_t base;  // entry in the low 15 bits, wrap counter in bit 15
  // Entries the engine had passed without returning them, and what has to be written there to
  // return them: an engine marks the first buffer of a burst last, and a kill can come between. The
  // driver would wait there forever.
  std::vector<std::pair<size_t, virtqueue::PackedDescriptor>> unfinished;
};

// Throws ProtocolError when the flags contradict each other. A ring that its driver is writing to
// may look so for a moment: read it again.
PackedPosition packedPosition(size_t ringIndex, std::span<const virtqueue::PackedDescriptor> ring);

}  // namespace vdpa::vhost_user
