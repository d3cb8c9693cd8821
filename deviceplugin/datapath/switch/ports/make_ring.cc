#include "deviceplugin/datapath/switch/ports/make_ring.h"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <variant>

#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/ports/features.h"
#include "deviceplugin/datapath/switch/ports/guest_memory.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"

namespace vdpa::vswitch {
namespace {

namespace feature = vhost_user::feature;

// Descriptors of one buffer: 64 KiB have room in 17 pages. Linux's have up to 19, DPDK's one.
constexpr uint16_t kReceiveBudget = 64;

// Of a packed ring, the upper half is the device's position. DPDK's front-end and its back-end give
// only the driver's: the device is then level with it.
uint32_t wholeBase(uint32_t base, virtqueue::Format format) {
  if (format == virtqueue::Format::kPacked && base >> 16 == 0) return base | base << 16;
  return base;
}

}  // namespace

Ring makeRing(const vhost_user::VhostDevice& device, size_t index, const GuestMemory& memory) {
  const vhost_user::Vring& ring = device.rings[index];
  const auto format = device.packed() ? virtqueue::Format::kPacked : virtqueue::Format::kSplit;
  virtqueue::RingSetup setup;
  setup.size = ring.size;
  setup.eventIndex = device.has(feature::kEventIndex);
  setup.indirect = device.has(feature::kIndirectDescriptors);
  setup.direction =
      isReceive(index) ? virtqueue::Direction::kReceive : virtqueue::Direction::kTransmit;
  // Those of a receive queue are read under a lock that all pollers may wait for.
  if (isReceive(index)) setup.chainBudget = kReceiveBudget;
  setup.shortest = static_cast<uint16_t>(formatOf(device.features).headerSize);
  try {
    setup.areas = virtqueue::findAreas(
        memory.byUser(), format, ring.size, setup.eventIndex,
        {ring.addresses->descriptors, ring.addresses->available, ring.addresses->used});
    setup.start = virtqueue::positionsOf(wholeBase(ring.base, format), format, ring.size);
    Ring made = device.packed() ? Ring(virtqueue::PackedRing(setup, memory.byGuest()))
                                : Ring(virtqueue::SplitRing(setup, memory.byGuest()));
    // Nobody waits for buffers to receive in: a driver need not kick when it refills them.
    if (isReceive(index)) std::visit([](auto& r) { r.suppressNotifications(); }, made);
    return made;
  } catch (const virtqueue::VirtqueueError& error) {
    throw virtqueue::VirtqueueError(fmt::format("ring {}: {}", index, error.what()));
  }
}

}  // namespace vdpa::vswitch
