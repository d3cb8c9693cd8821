// The device's position in a packed ring, from the ring's descriptors alone (virtio 1.2, 2.8).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace vdpa::vhost_user {

struct PackedDescriptor {
  uint64_t address;
  uint32_t length;
  uint16_t id;
  uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16);

namespace packed_flag {
inline constexpr uint16_t kNext = 1;
inline constexpr uint16_t kWrite = 2;
inline constexpr uint16_t kAvailable = 1 << 7;
inline constexpr uint16_t kUsed = 1 << 15;
}  // namespace packed_flag

struct PackedPosition {
  uint32_t base;  // entry in the low 15 bits, wrap counter in bit 15
  // Entries the engine had passed without returning them, and what has to be written there to
  // return them: an engine marks the first buffer of a burst last, and a kill can come between. The
  // driver would wait there forever.
  std::vector<std::pair<size_t, PackedDescriptor>> unfinished;
};

// Throws ProtocolError when the flags contradict each other. A ring that its driver is writing to
// may look so for a moment: read it again.
PackedPosition packedPosition(size_t ringIndex, std::span<const PackedDescriptor> ring);

}  // namespace vdpa::vhost_user
