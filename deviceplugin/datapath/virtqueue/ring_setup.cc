#include "deviceplugin/datapath/virtqueue/ring_setup.h"

#include <fmt/core.h>

#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {
namespace {

constexpr uint16_t kIndexMask = 0x7fff;
constexpr uint16_t kWrapBit = 0x8000;

struct Area {
  const char* name;
  uint64_t address;
  uint64_t size;
  uint64_t alignment;
  Access access;
};

const Range& check(const AddressMap& map, const Area& area) {
  const Range* range = map.whole(area.address, area.size, area.access);
  if (!range)
    throw VirtqueueError(fmt::format("the {} ({} bytes at {:#x}) is not within one memory region",
                                     area.name, area.size, area.address));
  // A region may be mapped anywhere, so that an aligned address need not be one for the processor.
  if (area.address % area.alignment != 0 ||
      reinterpret_cast<uintptr_t>(range->at(area.address)) % area.alignment != 0)
    throw VirtqueueError(fmt::format("the {} at {:#x} is not aligned to {} bytes", area.name,
                                     area.address, area.alignment));
  return *range;
}

Position positionOf(uint16_t half, uint32_t size) {
  const Position position{static_cast<uint16_t>(half & kIndexMask), (half & kWrapBit) != 0};
  if (position.index >= size)
    throw VirtqueueError(fmt::format("position {} in a ring of {} entries", position.index, size));
  return position;
}

uint32_t halfOf(const Position& position) {
  return position.index | (position.wrap ? kWrapBit : 0u);
}

}  // namespace

BufferReader::Rules rulesOf(const RingSetup& setup) {
  if (setup.chainBudget == 0 || setup.chainBudget > BufferList::kMaxSegments)
    throw VirtqueueError(fmt::format("a buffer of {} descriptors; 1 to {} are possible",
                                     setup.chainBudget, BufferList::kMaxSegments));
  if (setup.direction == Direction::kReceive && setup.shortest == 0)
    throw VirtqueueError("a receive queue without a size for the header");
  const uint16_t shortest = setup.direction == Direction::kReceive ? setup.shortest : uint16_t{0};
  return {setup.direction, setup.indirect, setup.chainBudget, shortest};
}

void checkSize(Format format, uint32_t size) {
  if (size == 0 || size > kMaxRingSize)
    throw VirtqueueError(
        fmt::format("a ring of {} entries; 1 to {} are possible", size, kMaxRingSize));
  if (format == Format::kSplit && (size & (size - 1)) != 0)
    throw VirtqueueError(fmt::format("a split ring of {} entries; expected a power of two", size));
}

RingAreas findAreas(const AddressMap& map, Format format, uint32_t size, bool eventIndex,
                    const RingAddresses& addresses) {
  checkSize(format, size);
  const bool split = format == Format::kSplit;
  const uint64_t event = eventIndex ? 2 : 0;  // drivers that lack it may leave it out
  const uint64_t driverSize =
      split ? split::kRing + split::kAvailableElement * size + event : packed::kEventSize;
  const uint64_t deviceSize =
      split ? split::kRing + split::kUsedElement * size + event : packed::kEventSize;

  RingAreas areas;
  const Range& descriptors =
      check(map, {"descriptor area", addresses.descriptors, kDescriptorSize * size, 16,
                  split ? Access::kRead : Access::kReadWrite});
  const Range& driver =
      check(map, {"driver area", addresses.driver, driverSize, split ? 2u : 4u, Access::kRead});
  const Range& device =
      check(map, {"device area", addresses.device, deviceSize, 4, Access::kReadWrite});
  areas.descriptors = descriptors.at(addresses.descriptors);
  areas.descriptorsPhysical = descriptors.physicalAt(addresses.descriptors);
  areas.driver = driver.at(addresses.driver);
  areas.device = device.at(addresses.device);
  areas.devicePhysical = device.physicalAt(addresses.device);
  return areas;
}

Positions positionsOf(uint32_t base, Format format, uint32_t size) {
  if (format == Format::kSplit) {
    const Position both{static_cast<uint16_t>(base), false};
    return {both, both};
  }
  return {positionOf(static_cast<uint16_t>(base), size),
          positionOf(static_cast<uint16_t>(base >> 16), size)};
}

uint32_t baseOf(const Positions& positions, Format format) {
  if (format == Format::kSplit) return positions.available.index;
  return halfOf(positions.available) | halfOf(positions.used) << 16;
}

}  // namespace vdpa::virtqueue
