// Where addresses lead: tables of regions, IOTLBs, and rings that read by them.
#include "deviceplugin/datapath/virtqueue/address_map.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/iotlb.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

std::byte* host(uint64_t offset) {
  return reinterpret_cast<std::byte*>(0x10000000 + offset);
}

std::byte* lookUp(const AddressMap& map, uint64_t address) {
  size_t hint = 0;
  const Range& range = map[map.find(address, hint)];
  return range.has(address) ? range.at(address) : nullptr;
}

}  // namespace

TEST_CASE("512 regions in any order") {
  std::vector<Range> regions;
  for (uint64_t i = 0; i < 512; ++i) {
    const uint64_t n = i * 37 % 512;
    regions.push_back({n * 0x3000, 0x2000, host(n * 0x100000), n * 0x3000});
  }
  const AddressMap map = AddressMap::ofRegions(regions);
  CHECK(map.size() == 512);
  size_t hint = 0;
  std::mt19937 random(1);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t address = random() % (513 * 0x3000);
    const bool inside = address / 0x3000 < 512 && address % 0x3000 < 0x2000;
    const size_t found = map.find(address, hint);
    REQUIRE((found < map.size()) == inside);
    if (inside)
      REQUIRE(map[found].at(address) == host(address / 0x3000 * 0x100000 + address % 0x3000));
  }
  regions.push_back({1 << 30, 0x1000, host(0), 1 << 30});
  CHECK_THROWS_WITH(AddressMap::ofRegions(regions), "513 memory regions; at most 512 are possible");
}

TEST_CASE("The ends of regions, and of all addresses") {
  const AddressMap map = AddressMap::ofRegions(
      {{0x1000, 0x1000, host(0), 0}, {UINT64_MAX - 0xfff, 0x1000, host(1), 0}});
  CHECK(lookUp(map, 0xfff) == nullptr);
  CHECK(lookUp(map, 0x1000) == host(0));
  CHECK(lookUp(map, 0x1fff) == host(0xfff));
  CHECK(lookUp(map, 0x2000) == nullptr);
  CHECK(lookUp(map, UINT64_MAX) == host(0x1000));
  CHECK(map.whole(0x1000, 0x1000, Access::kReadWrite) != nullptr);
  CHECK(map.whole(0x1000, 0x1001, Access::kReadWrite) == nullptr);
  CHECK(map.whole(UINT64_MAX, 1, Access::kReadWrite) != nullptr);
  CHECK(map.whole(UINT64_MAX, 2, Access::kReadWrite) == nullptr);
  CHECK(map.whole(UINT64_MAX, UINT64_MAX, Access::kReadWrite) == nullptr);
  CHECK(lookUp(AddressMap(), 0) == nullptr);
}

TEST_CASE("Regions that cannot be") {
  CHECK_THROWS_WITH(AddressMap::ofRegions({{0x1000, 0, host(0), 0}}),
                    "a memory region of 0 bytes at 0x1000");
  CHECK_THROWS_WITH(AddressMap::ofRegions({{UINT64_MAX, 2, host(0), 0}}),
                    "a memory region of 2 bytes at 0xffffffffffffffff");
  CHECK_THROWS_WITH(
      AddressMap::ofRegions({{0x2000, 0x1000, host(0), 0}, {0x1000, 0x1001, host(0), 0}}),
      "the memory regions at 0x1000 and 0x2000 overlap");
  CHECK_THROWS(AddressMap::ofRegions({{0x2000, 0x1000, host(0), 0}, {0x2000, 1, host(0), 0}}));
}

TEST_CASE("An IOTLB follows its messages") {
  const AddressMap byUser = AddressMap::ofRegions(
      {{0x7000'0000, 0x10000, host(0), 0x100000}, {0x7001'0000, 0x10000, host(0x50000), 0x900000}});
  Iotlb iotlb(byUser);
  CHECK(iotlb.map().mayGrow());

  iotlb.update(0x1000, 0x1000, 0x7000'2000, Access::kReadWrite);
  iotlb.update(0x3000, 0x1000, 0x7000'4000, Access::kReadWrite);
  CHECK(iotlb.map().size() == 2);
  iotlb.update(0x2000, 0x1000, 0x7000'3000, Access::kReadWrite);  // what lies between
  CHECK(iotlb.map().size() == 1);
  CHECK(lookUp(iotlb.map(), 0x3fff) == host(0x4fff));

  iotlb.update(0x0, 0x1000, 0x7000'1000, Access::kReadWrite);  // what comes before
  CHECK(iotlb.map().size() == 1);
  CHECK(lookUp(iotlb.map(), 0) == host(0x1000));
  iotlb.invalidate(0, 0x1000);

  iotlb.invalidate(0x2800, 0x10);
  CHECK(iotlb.map().size() == 2);
  CHECK(lookUp(iotlb.map(), 0x27ff) == host(0x37ff));
  CHECK(lookUp(iotlb.map(), 0x2800) == nullptr);
  CHECK(lookUp(iotlb.map(), 0x280f) == nullptr);
  CHECK(lookUp(iotlb.map(), 0x2810) == host(0x3810));

  iotlb.update(0x1000, 0x1000, 0x7001'0000, Access::kRead);  // replaces
  CHECK(lookUp(iotlb.map(), 0x1000) == host(0x50000));
  CHECK(iotlb.map().whole(0x1000, 1, Access::kWrite) == nullptr);

  iotlb.invalidate(0, UINT64_MAX);
  CHECK(iotlb.map().size() == 0);

  iotlb.update(0x5000, 0x4000, 0x7000'e000, Access::kReadWrite);  // two regions
  CHECK(iotlb.map().size() == 2);
  CHECK(lookUp(iotlb.map(), 0x6fff) == host(0xffff));
  CHECK(lookUp(iotlb.map(), 0x7000) == host(0x50000));
  CHECK(iotlb.map()[1].physical == 0x900000);

  CHECK_THROWS_WITH(iotlb.update(0, 0x4000, 0x7001'e000, Access::kRead),
                    "an IOTLB entry of 16384 bytes at 0x0 is of memory at 0x70020000 that is not "
                    "shared");
  CHECK_THROWS_WITH(iotlb.update(0x10, 0, 0x7000'0000, Access::kRead),
                    "an IOTLB entry of 0 bytes at 0x10");
  CHECK_THROWS(iotlb.update(UINT64_MAX, 2, 0x7000'0000, Access::kRead));
  CHECK(iotlb.map().size() == 2);
}

TEST_CASE("An IOTLB that is full forgets all") {
  Iotlb iotlb(AddressMap::ofRegions({{0, 1 << 30, host(0), 0}}));
  for (uint64_t i = 0; i < Iotlb::kMaxRanges; ++i)
    iotlb.update(i * 0x2000, 0x1000, i * 0x3000, Access::kReadWrite);
  CHECK(iotlb.map().size() == Iotlb::kMaxRanges);
  iotlb.update(uint64_t{1} << 40, 0x1000, 0, Access::kReadWrite);
  CHECK(iotlb.map().size() == 1);
}

TEMPLATE_TEST_CASE("A ring reads through an IOTLB, and says what it lacks", "", SplitDriver,
                   PackedDriver) {
  Guest guest;
  TestType driver(guest, 16);
  const uint64_t page = guest.allocate(0x3000, 4096);
  Iotlb iotlb(guest.map());
  typename TestType::Device ring(driver.setup(Direction::kTransmit), iotlb.map());
  BufferList list;
  Lease lease;

  constexpr uint64_t kIova = 0x8000'0000;
  driver.add({kIova + 100, 200});
  CHECK(fetch(ring, list, 64, lease) == 0);
  CHECK_FALSE(ring.fault());
  REQUIRE(ring.reader().miss().has_value());
  CHECK(ring.reader().miss()->address == kIova + 100);
  CHECK(ring.reader().miss()->access == Access::kRead);

  iotlb.update(kIova, 0x1000, page, Access::kRead);
  CHECK(fetch(ring, list, 64, lease) == 1);
  CHECK_FALSE(ring.reader().miss().has_value());
  CHECK(list[0].data == guest.at(page + 100));

  SECTION("pages that lie apart") {
    iotlb.update(kIova + 0x1000, 0x1000, page + 0x2000, Access::kRead);
    driver.add({kIova + 0xff0, 0x20});
    REQUIRE(fetch(ring, list, 64, lease) == 1);
    const auto segments = list.segments(list[0]);
    REQUIRE(segments.size() == 2);
    CHECK(segments[0].data == guest.at(page + 0xff0));
    CHECK(segments[0].length == 0x10);
    CHECK(segments[1].data == guest.at(page + 0x2000));
    CHECK(segments[1].length == 0x10);
  }
  SECTION("the second page") {
    driver.add({kIova + 0xff0, 0x20});
    CHECK(fetch(ring, list, 64, lease) == 0);
    CHECK(ring.reader().miss()->address == kIova + 0x1000);
  }
  SECTION("a table") {
    driver.add(std::vector<Element>{{kIova + 0x5000, 16}}, flag::kIndirect);
    CHECK(fetch(ring, list, 64, lease) == 0);
    CHECK(ring.reader().miss()->address == kIova + 0x5000);
    CHECK(ring.reader().miss()->access == Access::kRead);
  }
  SECTION("buffers before the miss come first") {
    driver.add({kIova, 60});
    driver.add({kIova + 0x5000, 60});
    driver.add({kIova, 61});
    CHECK(fetch(ring, list, 64, lease) == 1);
    CHECK(ring.reader().miss().has_value());
    iotlb.update(kIova + 0x5000, 0x1000, page, Access::kReadWrite);
    CHECK(fetch(ring, list, 64, lease) == 2);
  }
}

TEMPLATE_TEST_CASE("An IOTLB entry that grants too little is a miss", "", SplitDriver,
                   PackedDriver) {
  Guest guest;
  TestType driver(guest, 16);
  Iotlb iotlb(guest.map());
  iotlb.update(0, 0x1000, guest.allocate(0x1000, 4096), Access::kRead);
  typename TestType::Device ring(driver.setup(Direction::kReceive), iotlb.map());
  BufferList list;
  Lease lease;
  driver.add({0x10, 100, true});
  CHECK(fetch(ring, list, 64, lease) == 0);
  REQUIRE(ring.reader().miss().has_value());
  CHECK(ring.reader().miss()->access == Access::kWrite);
}

TEMPLATE_TEST_CASE("A buffer in more pieces than its budget", "", SplitDriver, PackedDriver) {
  Guest guest;
  TestType driver(guest, 16);
  const uint64_t data = guest.allocate(0x1000, 4096);
  std::vector<Range> regions;
  for (uint64_t i = 0; i < 10; ++i)  // the same page again and again
    regions.push_back({i * 0x1000, 0x1000, guest.at(data), i * 0x1000, Access::kReadWrite});
  const AddressMap map = AddressMap::ofRegions(regions);
  RingSetup setup = driver.setup(Direction::kTransmit);
  setup.chainBudget = 4;
  typename TestType::Device ring(setup, map);
  BufferList list;
  Lease lease;
  driver.add({0x10, 0x3000});
  driver.add({0x10, 0x4000});
  CHECK(fetch(ring, list, 64, lease) == 1);
  CHECK(list[0].pieces == 4);
  CHECK(describe(ring.fault()) == "entry 1 of the ring: a buffer has more than 4 descriptors");
}

TEMPLATE_TEST_CASE("A buffer that crosses from one region into the next", "", SplitDriver,
                   PackedDriver) {
  Guest guest;
  TestType driver(guest, 16);
  const uint64_t data = guest.allocate(0x4000, 4096);
  // Neighbours for the driver, but not for us.
  const AddressMap map = AddressMap::ofRegions({{0x1000, 0x1000, guest.at(data + 0x2000), 0x1000},
                                                {0x2000, 0x1000, guest.at(data), 0x2000}});
  typename TestType::Device ring(driver.setup(Direction::kTransmit), map);
  BufferList list;
  Lease lease;
  driver.add({0x1f00, 0x200});
  driver.add({0x2f00, 0x200});
  CHECK(fetch(ring, list, 64, lease) == 1);
  const auto segments = list.segments(list[0]);
  REQUIRE(segments.size() == 2);
  CHECK(segments[0].data == guest.at(data + 0x2f00));
  CHECK(segments[1].data == guest.at(data));
  CHECK(describe(ring.fault()) ==
        "entry 1 of the ring: 256 bytes at 0x3000 are not within the shared memory");
}
