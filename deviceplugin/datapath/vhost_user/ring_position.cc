#include "deviceplugin/datapath/vhost_user/ring_position.h"

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/packed_position.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::vhost_user {
namespace {

uint16_t readU16(const MemoryTable& memory, uint64_t address) {
  uint16_t value;
  memory.read(address, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

// The device returns buffers in order, so the used index is how many it has taken and finished.
uint32_t splitPosition(const VhostDevice& device, size_t index) {
  const Vring& ring = device.rings[index];
  const uint16_t used = readU16(*device.memory, ring.addresses->used + virtqueue::split::kIndex);
  const uint16_t available =
      readU16(*device.memory, ring.addresses->available + virtqueue::split::kIndex);
  if (const auto open = static_cast<uint16_t>(available - used); open > ring.size)
    throw protocolError(
        "ring {}: {} buffers are open in {} entries (available {}, used {}); the driver must reset",
        index, open, ring.size, available, used);
  return used;
}

// The driver may be adding buffers while its ring is read, which can look like a contradiction. It
// cannot do so for long: without an engine the ring fills up.
PackedPosition readPacked(const VhostDevice& device, size_t index,
                          std::vector<virtqueue::PackedDescriptor>& descriptors) {
  constexpr int kAttempts = 16;
  for (int attempt = 1;; ++attempt) {
    device.memory->read(device.rings[index].addresses->descriptors,
                        std::as_writable_bytes(std::span(descriptors)));
    try {
      return packedPosition(index, descriptors);
    } catch (const ProtocolError&) {
      if (attempt == kAttempts) throw;
    }
  }
}

}  // namespace

uint32_t recoverPosition(const VhostDevice& device, size_t index) {
  if (!device.packed()) return splitPosition(device, index);
  const Vring& ring = device.rings[index];
  std::vector<virtqueue::PackedDescriptor> descriptors(ring.size);
  const PackedPosition position = readPacked(device, index, descriptors);
  for (const auto& [entry, descriptor] : position.unfinished)
    device.memory->write(ring.addresses->descriptors + entry * sizeof descriptor,
                         std::as_bytes(std::span(&descriptor, 1)));
  return position.base | position.base << 16;
}

}  // namespace vdpa::vhost_user
