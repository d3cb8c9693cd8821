#include "deviceplugin/datapath/vhost_user/vhost_device.h"

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

void checkPart(const MemoryTable& memory, size_t index, const char* part, uint64_t address,
               uint64_t size, uint64_t alignment) {
  if (address % alignment != 0)
    throw protocolError("ring {}: the {} at {:#x} is not aligned to {} bytes", index, part, address,
                        alignment);
  if (!memory.contains(address, size))
    throw protocolError("ring {}: the {} ({} bytes at {:#x}) is not within one memory region",
                        index, part, size, address);
}

}  // namespace

VringLayout::VringLayout(uint32_t ringSize, bool packed, bool eventIndex) {
  const uint64_t entries = ringSize;
  descriptorsSize = 16 * entries;
  descriptorsAlignment = 16;
  if (packed) {
    availableSize = usedSize = 4;
    availableAlignment = usedAlignment = 4;
  } else {
    const uint64_t event = eventIndex ? 2 : 0;
    availableSize = 4 + 2 * entries + event;
    usedSize = 4 + 8 * entries + event;
    availableAlignment = 2;
    usedAlignment = 4;
  }
}

void checkRing(const VhostDevice& device, const MemoryTable* memory, size_t index) {
  const Vring& ring = device.rings[index];
  if (ring.size == 0) throw protocolError("ring {} is started before its size is set", index);
  if (!ring.addresses)
    throw protocolError("ring {} is started before its addresses are set", index);
  if (!memory) throw protocolError("ring {} is started before memory is shared", index);
  if (!device.packed() && (ring.size & (ring.size - 1)) != 0)
    throw protocolError("ring {}: a split ring of {} entries; expected a power of two", index,
                        ring.size);
  const uint32_t position = ring.base & 0x7fff;
  if (device.packed() && position >= ring.size)
    throw protocolError("ring {}: starts at entry {} of {}", index, position, ring.size);

  const VringLayout layout(ring.size, device.packed(), device.has(feature::kEventIndex));
  const VringAddresses& at = *ring.addresses;
  checkPart(*memory, index, "descriptor area", at.descriptors, layout.descriptorsSize,
            layout.descriptorsAlignment);
  checkPart(*memory, index, "driver area", at.available, layout.availableSize,
            layout.availableAlignment);
  checkPart(*memory, index, "device area", at.used, layout.usedSize, layout.usedAlignment);
}

}  // namespace vdpa::vhost_user
