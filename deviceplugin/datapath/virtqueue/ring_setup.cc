#include "deviceplugin/datapath/virtqueue/ring_setup.h"

#include <fmt/core.h>

#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {
namespace {

constexpr uint16_t kIndexMask = 0x7fff;
constexpr uint16_t kWrapBit = 0x8000;

struct Area {
  const char* name;
  uint64_t address;
  RingLayout::Area layout;
  Access access;
};

const Range& check(const AddressMap& map, const Area& area) {
  const auto [size, alignment] = area.layout;
  const Range* range = map.whole(area.address, size, area.access);
  if (!range)
    throw VirtqueueError(fmt::format("the {} ({} bytes at {:#x}) is not within one memory region",
                                     area.name, size, area.address));
  // A region may be mapped anywhere, so that an aligned address need not be one for the processor.
  if (area.address % alignment != 0 ||
      reinterpret_cast<uintptr_t>(range->at(area.address)) % alignment != 0)
    throw VirtqueueError(fmt::format("the {} at {:#x} is not aligned to {} bytes", area.name,
                                     area.address, alignment));
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
  const RingLayout layout = ringLayout(format, size, eventIndex);

  RingAreas areas;
  const Range& descriptors =
      check(map, {"descriptor area", addresses.descriptors, layout.descriptors,
                  format == Format::kSplit ? Access::kRead : Access::kReadWrite});
  const Range& driver = check(map, {"driver area", addresses.driver, layout.driver, Access::kRead});
  const Range& device =
      check(map, {"device area", addresses.device, layout.device, Access::kReadWrite});
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
