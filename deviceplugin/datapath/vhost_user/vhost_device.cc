#include "deviceplugin/datapath/vhost_user/vhost_device.h"

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"

namespace vdpa::vhost_user {
namespace {

void checkArea(const MemoryTable& memory, size_t index, const char* area, uint64_t address,
               const virtqueue::RingLayout::Area& layout) {
  if (address % layout.alignment != 0)
    throw protocolError("ring {}: the {} at {:#x} is not aligned to {} bytes", index, area, address,
                        layout.alignment);
  if (!memory.contains(address, layout.size))
    throw protocolError("ring {}: the {} ({} bytes at {:#x}) is not within one memory region",
                        index, area, layout.size, address);
}

}  // namespace

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

  const virtqueue::RingLayout layout =
      virtqueue::ringLayout(device.format(), ring.size, device.has(feature::kEventIndex));
  const VringAddresses& at = *ring.addresses;
  checkArea(*memory, index, "descriptor area", at.descriptors, layout.descriptors);
  checkArea(*memory, index, "driver area", at.available, layout.driver);
  checkArea(*memory, index, "device area", at.used, layout.device);
}

}  // namespace vdpa::vhost_user
