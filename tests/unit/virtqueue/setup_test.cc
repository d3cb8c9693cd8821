// Rings as their drivers set them up: sizes, places, positions.
#include <catch2/catch.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

TEST_CASE("Ring sizes") {
  for (uint32_t size = 1; size <= 32768; size *= 2) CHECK_NOTHROW(checkSize(Format::kSplit, size));
  for (const uint32_t size : {1u, 3u, 7u, 1000u, 32767u, 32768u})
    CHECK_NOTHROW(checkSize(Format::kPacked, size));
  for (const uint32_t size : {0u, 32769u, 65536u, UINT32_MAX})
    for (const Format format : {Format::kSplit, Format::kPacked})
      CHECK_THROWS_WITH(checkSize(format, size),
                        "a ring of " + std::to_string(size) + " entries; 1 to 32768 are possible");
  CHECK_THROWS_WITH(checkSize(Format::kSplit, 24),
                    "a split ring of 24 entries; expected a power of two");
}

TEST_CASE("Areas") {
  Guest guest(1 << 20);
  const uint64_t end = Guest::kStart + guest.size();
  const auto find = [&](Format format, uint32_t size, uint64_t descriptors, uint64_t driver,
                        uint64_t device, bool event = true) {
    return findAreas(guest.map(), format, size, event, {descriptors, driver, device});
  };
  const uint64_t at = Guest::kStart;

  SECTION("are found") {
    const RingAreas areas = find(Format::kSplit, 256, at, at + 0x1000, at + 0x2000);
    CHECK(areas.descriptors == guest.at(at));
    CHECK(areas.driver == guest.at(at + 0x1000));
    CHECK(areas.device == guest.at(at + 0x2000));
    CHECK(areas.devicePhysical == at + 0x2000);
  }
  SECTION("may end where the memory ends") {
    CHECK_NOTHROW(find(Format::kSplit, 256, end - 4096, at, at));
    CHECK_NOTHROW(find(Format::kSplit, 256, at, end - 518, at));
    CHECK_NOTHROW(find(Format::kSplit, 256, at, end - 516, at, false));
    CHECK_NOTHROW(find(Format::kSplit, 256, at, at, end - 2056));
    CHECK_NOTHROW(find(Format::kPacked, 100, end - 1600, end - 4, end - 4));
  }
  SECTION("beyond it") {
    CHECK_THROWS_WITH(find(Format::kSplit, 256, end - 4080, at, at),
                      "the descriptor area (4096 bytes at 0x1ff010) is not within one memory "
                      "region");
    CHECK_THROWS_WITH(find(Format::kSplit, 256, at, end - 516, at),
                      "the driver area (518 bytes at 0x1ffdfc) is not within one memory region");
    CHECK_THROWS_WITH(find(Format::kSplit, 256, at, at, end - 2052),
                      "the device area (2054 bytes at 0x1ff7fc) is not within one memory region");
    CHECK_THROWS_WITH(find(Format::kPacked, 8, at, end, at),
                      "the driver area (4 bytes at 0x200000) is not within one memory region");
    CHECK_THROWS(find(Format::kPacked, 8, UINT64_MAX - 15, at, at));
  }
  SECTION("that are not aligned") {
    CHECK_THROWS_WITH(find(Format::kSplit, 4, at + 8, at, at),
                      "the descriptor area at 0x100008 is not aligned to 16 bytes");
    CHECK_THROWS_WITH(find(Format::kSplit, 4, at, at + 1, at),
                      "the driver area at 0x100001 is not aligned to 2 bytes");
    CHECK_THROWS_WITH(find(Format::kSplit, 4, at, at, at + 2),
                      "the device area at 0x100002 is not aligned to 4 bytes");
    CHECK_THROWS_WITH(find(Format::kPacked, 4, at, at + 2, at),
                      "the driver area at 0x100002 is not aligned to 4 bytes");
  }
  SECTION("that are aligned for the driver alone") {
    const AddressMap map = AddressMap::ofRegions({{0x8, 0x1000, guest.at(at), 0x8}});
    CHECK_THROWS_WITH(findAreas(map, Format::kSplit, 4, false, {0x10, 0x100, 0x200}),
                      "the descriptor area at 0x10 is not aligned to 16 bytes");
  }
  SECTION("that the device may not write to") {
    const AddressMap map = AddressMap::ofRegions(
        {{0, 0x1000, guest.at(at), 0, Access::kRead}, {0x1000, 0x1000, guest.at(at), 0}});
    CHECK_NOTHROW(findAreas(map, Format::kSplit, 4, false, {0, 0, 0x1000}));
    CHECK_THROWS(findAreas(map, Format::kSplit, 4, false, {0, 0, 0x800}));
    CHECK_THROWS(findAreas(map, Format::kPacked, 4, false, {0, 0, 0x1000}));
  }
}

TEST_CASE("Positions as vhost-user has them") {
  CHECK(positionsOf(0xfffe, Format::kSplit, 8) == Positions{{0xfffe, false}, {0xfffe, false}});
  CHECK(baseOf({{0xfffe, false}, {0xfffe, false}}, Format::kSplit) == 0xfffe);
  CHECK(positionsOf(0x00058007, Format::kPacked, 8) == Positions{{7, true}, {5, false}});
  CHECK(baseOf({{7, true}, {5, false}}, Format::kPacked) == 0x00058007);
  CHECK_THROWS_WITH(positionsOf(0x80008008, Format::kPacked, 8),
                    "position 8 in a ring of 8 entries");
  CHECK_THROWS_WITH(positionsOf(0x80088000, Format::kPacked, 8),
                    "position 8 in a ring of 8 entries");
}

TEST_CASE("Positions that contradict each other") {
  Guest guest;
  SplitDriver split(guest, 8);
  PackedDriver packed(guest, 8);
  RingSetup setup = split.setup(Direction::kTransmit);
  setup.start = {{20, false}, {12, false}};
  CHECK_NOTHROW(SplitRing(setup, guest.map()));
  setup.start = {{21, false}, {12, false}};
  CHECK_THROWS_WITH(SplitRing(setup, guest.map()),
                    "the device stands at 21 (available) and 12 (used) in a ring of 8 entries");

  setup = packed.setup(Direction::kTransmit);
  setup.start = {{5, false}, {5, true}};
  CHECK_NOTHROW(PackedRing(setup, guest.map()));
  setup.start = {{6, false}, {5, true}};
  CHECK_THROWS_WITH(PackedRing(setup, guest.map()),
                    "the device stands at 6/0 (available) and 5/1 (used) in a ring of 8 entries");
  setup.start = {{4, true}, {5, true}};
  CHECK_THROWS(PackedRing(setup, guest.map()));
  setup.start = {{8, true}, {8, true}};
  CHECK_THROWS(PackedRing(setup, guest.map()));
}

TEST_CASE("Limits of a ring") {
  Guest guest;
  SplitDriver driver(guest, 8);
  RingSetup setup = driver.setup(Direction::kReceive);
  setup.chainBudget = 1025;
  CHECK_THROWS_WITH(SplitRing(setup, guest.map()),
                    "a buffer of 1025 descriptors; 1 to 1024 are possible");
  setup.chainBudget = 0;
  CHECK_THROWS(SplitRing(setup, guest.map()));
  setup.chainBudget = 1024;
  CHECK_NOTHROW(SplitRing(setup, guest.map()));
  setup.shortest = 0;
  CHECK_THROWS_WITH(SplitRing(setup, guest.map()), "a receive queue without a size for the header");
}
