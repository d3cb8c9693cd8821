// A ring as its driver sets it up, before the device's side is made: size, places, positions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"

namespace vdpa::virtqueue {

// Where the driver says that a ring's three areas are (2.6).
struct RingAddresses {
  uint64_t descriptors;  // "descriptor table" of a split ring, "descriptor ring" of a packed one
  uint64_t driver;       // "available ring"; "driver event suppression"
  uint64_t device;       // "used ring"; "device event suppression"
};

// The same, found in memory. Borrowed.
struct RingAreas {
  std::byte* descriptors = nullptr;
  std::byte* driver = nullptr;
  std::byte* device = nullptr;
  // Guest-physical, for the log of dirty pages.
  uint64_t descriptorsPhysical = 0;
  uint64_t devicePhysical = 0;
};

// Where each side stands.
struct Positions {
  Position available;  // next to be taken by the device
  Position used;       // next used element

  bool operator==(const Positions&) const = default;
};

struct RingSetup {
  uint32_t size = 0;        // entries
  bool eventIndex = false;  // VIRTIO_F_EVENT_IDX was negotiated
  bool indirect = false;    // VIRTIO_F_INDIRECT_DESC was negotiated
  Direction direction = Direction::kTransmit;
  // The most descriptors of one buffer. The device may limit them (2.7.4.1, 2.8.18), but cannot
  // announce the limit: it must suffice for a driver that uses one for each page of a 64 KiB
  // packet, and a few more.
  uint16_t chainBudget = 256;
  uint16_t shortest = 0;  // bytes: a buffer to receive must hold the header (5.1.6.3.1)
  RingAreas areas;
  Positions start;
};

// Throws VirtqueueError for a chain budget that exceeds a list's room, and for a receive queue that
// would allow empty buffers.
BufferReader::Rules rulesOf(const RingSetup& setup);

// Throws VirtqueueError unless the format allows rings of this size: up to 32,768 entries, a power
// of two if it is split (2.7, 2.8.10.1).
void checkSize(Format format, uint32_t size);

// Finds the areas. `map` has the addresses by which the front-end gives the places of rings (those
// of its process, or I/O virtual ones). Each area must lie in one range, and be aligned there as in
// the driver's memory (2.7, 2.8.10.1). Throws VirtqueueError.
RingAreas findAreas(const AddressMap& map, Format format, uint32_t size, bool eventIndex,
                    const RingAddresses& addresses);

// A vhost-user "vring base" (SET_VRING_BASE, "Vring state structure"): of a split ring the next
// available index, with which used ones are level; of a packed ring entry and wrap counter (bit 15)
// of the driver's side in the low half, of the device's in the high half. Throws VirtqueueError for
// an entry that the ring lacks.
Positions positionsOf(uint32_t base, Format format, uint32_t size);
uint32_t baseOf(const Positions& positions, Format format);

}  // namespace vdpa::virtqueue
