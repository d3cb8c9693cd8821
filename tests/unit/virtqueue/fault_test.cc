// Drivers' faults and their descriptions. A fault ends the ring; buffers before it count.
#include "deviceplugin/datapath/virtqueue/fault.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

constexpr uint64_t kOutside = 0xdead0000;

template <typename Driver>
struct Queue {
  explicit Queue(Direction direction = Direction::kTransmit, uint16_t budget = 256,
                 bool indirect = true)
      : driver(guest, 8), ring(make(direction, budget, indirect)), data(guest.allocate(4096)) {}

  typename Driver::Device make(Direction direction, uint16_t budget, bool indirect) {
    RingSetup setup = driver.setup(direction);
    setup.chainBudget = budget;
    setup.indirect = indirect;
    return typename Driver::Device(setup, guest.map());
  }

  // One good buffer comes before what the test adds.
  std::string faultAfterOne() {
    CHECK(fetch(ring, *list, 64, lease) == 1);
    const std::string words = describe(ring.fault());
    // It stays that way.
    CHECK(fetch(ring, *list, 64, lease) == 0);
    CHECK(describe(ring.fault()) == words);
    return words;
  }

  Guest guest;
  Driver driver;
  typename Driver::Device ring;
  uint64_t data;
  std::unique_ptr<BufferList> list = std::make_unique<BufferList>();
  Lease lease;
};

}  // namespace

TEST_CASE("Split: an available index beyond the ring") {
  Queue<SplitDriver> queue;
  queue.driver.add({queue.data, 100});
  fetch(queue.ring, *queue.list, 64, queue.lease);
  const auto open = static_cast<uint16_t>(GENERATE(9, 10, 65535));
  storeRelease(queue.driver.driver(split::kIndex), open);
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 0);
  CHECK(describe(queue.ring.fault()) == "entry " + std::to_string(open & 7) +
                                            " of the ring: " + std::to_string(open) +
                                            " buffers are available in 8 entries");
}

TEST_CASE("Split: as many buffers as entries, open and new, are no fault; one more is") {
  Queue<SplitDriver> queue;
  storeRelease(queue.driver.driver(split::kIndex), uint16_t{8});
  for (uint16_t i = 0; i < 8; ++i) queue.driver.put(i, queue.data, 10, 0, 0);
  CHECK(fetch(queue.ring, *queue.list, 3, queue.lease) == 3);  // which are open now
  BufferList list;
  Lease lease;
  CHECK(fetch(queue.ring, list, 64, lease) == 5);
  CHECK_FALSE(queue.ring.fault());
  storeRelease(queue.driver.driver(split::kIndex), uint16_t{9});
  CHECK(fetch(queue.ring, list, 64, lease) == 0);
  CHECK(queue.ring.fault().kind == FaultKind::kAvailableIndex);
}

TEST_CASE("Split: an available index that goes back (2.7.6.1)") {
  Queue<SplitDriver> queue;
  for (int i = 0; i < 4; ++i) queue.driver.add({queue.data, 100});
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 4);
  storeRelease(queue.driver.driver(split::kIndex), uint16_t{2});
  BufferList list;
  Lease lease;
  CHECK(fetch(queue.ring, list, 64, lease) == 0);  // two of the four, which are taken
  giveBack(queue.ring, *queue.list, queue.lease);
  CHECK(fetch(queue.ring, list, 64, lease) == 0);
  CHECK(describe(queue.ring.fault()) ==
        "entry 2 of the ring: 65534 buffers are available in 8 entries");
}

TEST_CASE("Split: heads and links beyond their table") {
  Queue<SplitDriver> queue;
  queue.driver.add({queue.data, 100});
  SECTION("a head") {
    queue.driver.stage(static_cast<uint16_t>(GENERATE(8, 65535)));
    queue.driver.expose();
    CHECK_THAT(queue.faultAfterOne(), Catch::StartsWith("entry 1 of the ring: descriptor ") &&
                                          Catch::EndsWith(" is available, of 8"));
  }
  SECTION("a link") {
    queue.driver.put(3, queue.data, 100, flag::kNext, 8);
    queue.driver.stage(3);
    queue.driver.expose();
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: descriptor 8 is the next in a chain, of 8");
  }
  SECTION("a link in an indirect table") {
    const uint64_t table = queue.guest.allocate(32);
    queue.guest.put(table, Descriptor{queue.data, 10, flag::kNext, 2});
    queue.driver.put(3, table, 32, flag::kIndirect, 0);
    queue.driver.stage(3);
    queue.driver.expose();
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: descriptor 2 is the next in a chain, of 2");
  }
}

TEST_CASE("Split: chains that loop") {
  Queue<SplitDriver> queue;
  queue.driver.add({queue.data, 100});
  SECTION("in the ring") {
    queue.driver.put(3, queue.data, 1, flag::kNext, 4);
    queue.driver.put(4, queue.data, 1, flag::kNext, 3);
    queue.driver.stage(3);
    queue.driver.expose();
    CHECK(queue.faultAfterOne() == "entry 1 of the ring: a buffer has more than 8 descriptors");
  }
  SECTION("in a table") {
    const uint64_t table = queue.guest.allocate(32);
    queue.guest.put(table, Descriptor{queue.data, 10, flag::kNext, 0});
    queue.driver.put(3, table, 32, flag::kIndirect, 0);
    queue.driver.stage(3);
    queue.driver.expose();
    CHECK(queue.faultAfterOne() == "entry 1 of the ring: a buffer has more than 256 descriptors");
  }
  SECTION("into a table that leads to itself") {
    const uint64_t table = queue.guest.allocate(32);
    queue.guest.put(table, Descriptor{table, 32, flag::kIndirect, 0});
    queue.driver.put(3, table, 32, flag::kIndirect, 0);
    queue.driver.stage(3);
    queue.driver.expose();
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: an indirect table within an indirect table");
  }
}

TEST_CASE("Packed: a chain that runs around the ring") {
  Queue<PackedDriver> queue;
  queue.driver.add({queue.data, 100});
  for (int i = 0; i < 8; ++i) queue.driver.put(queue.data, 1, flag::kNext, 0);
  // Entry 0 was overwritten: it is a chain now, and its flags are those of the next lap.
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 0);
  CHECK_FALSE(queue.ring.fault());

  Queue<PackedDriver> other;
  other.driver.add({other.data, 100});
  for (int i = 0; i < 7; ++i) other.driver.put(other.data, 1, flag::kNext, 0);
  CHECK(other.faultAfterOne() == "entry 1 of the ring: a buffer has more than 7 descriptors");
}

TEST_CASE("Packed: more entries than the ring has are not available") {
  Queue<PackedDriver> queue;
  for (int i = 0; i < 8; ++i) queue.driver.put(queue.data, 10, 0, static_cast<uint16_t>(i));
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 8);
  for (int i = 0; i < 8; ++i) queue.driver.put(queue.data, 10, 0, static_cast<uint16_t>(i));
  BufferList list;
  Lease lease;
  CHECK(fetch(queue.ring, list, 64, lease) == 0);
  CHECK_FALSE(queue.ring.fault());
  giveBack(queue.ring, *queue.list, queue.lease);
}

TEST_CASE("Packed: a table in a chain (2.8.19)") {
  Queue<PackedDriver> queue;
  queue.driver.add({queue.data, 100});
  SECTION("first") {
    queue.driver.put(queue.data, 16, flag::kNext | flag::kIndirect, 0);
  }
  SECTION("later") {
    queue.driver.put(queue.data, 16, flag::kNext, 0);
    queue.driver.put(queue.data, 16, flag::kIndirect, 0);
  }
  CHECK(queue.faultAfterOne() == "entry 1 of the ring: an indirect table amid a chain");
}

TEST_CASE("Split: a table with a next one (2.7.5.3.1)") {
  Queue<SplitDriver> queue;
  queue.driver.add({queue.data, 100});
  queue.driver.put(3, queue.data, 16, flag::kIndirect | flag::kNext, 4);
  queue.driver.stage(3);
  queue.driver.expose();
  CHECK(queue.faultAfterOne() == "entry 1 of the ring: an indirect table amid a chain");
}

TEMPLATE_TEST_CASE("Memory that is not shared", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue;
  queue.driver.add({queue.data, 100});
  SECTION("a buffer") {
    queue.driver.add({kOutside, 100});
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: 100 bytes at 0xdead0000 are not within the shared memory");
  }
  SECTION("its end") {
    const uint64_t end = Guest::kStart + queue.guest.size();
    queue.driver.add({end - 10, 11});
    CHECK_THAT(queue.faultAfterOne(), Catch::Contains("1 bytes at 0x500000 are not within"));
  }
  SECTION("an address at the end of all addresses") {
    queue.driver.add({UINT64_MAX - 4, 100});
    CHECK_THAT(queue.faultAfterOne(), Catch::Contains("are not within the shared memory"));
  }
  SECTION("a table") {
    queue.driver.add(std::vector<Element>{{kOutside, 16}}, flag::kIndirect);
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: 16 bytes at 0xdead0000 are not within the shared memory");
  }
  SECTION("what a table names") {
    queue.driver.addIndirect(std::vector<Element>{{queue.data, 12}, {kOutside, 50}});
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: 50 bytes at 0xdead0000 are not within the shared memory");
  }
}

TEMPLATE_TEST_CASE("Chains beyond the budget", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(Direction::kTransmit, 4);
  queue.driver.add({queue.data, 100});
  const std::vector<Element> most(4, {queue.data, 10}), tooMany(5, {queue.data, 10});
  const char* words = "entry 1 of the ring: a buffer has more than 4 descriptors";
  SECTION("in the ring") {
    queue.driver.add(tooMany);
    CHECK(queue.faultAfterOne() == words);
  }
  SECTION("in a table") {
    queue.driver.addIndirect(tooMany);
    CHECK(queue.faultAfterOne() == words);
  }
  SECTION("of nothing") {
    queue.driver.addIndirect(std::vector<Element>(5, {queue.data, 0}));
    CHECK(queue.faultAfterOne() == words);
  }
  SECTION("at the budget they are none") {
    queue.driver.addIndirect(most);
    queue.driver.add(most);
    CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 3);
    CHECK_FALSE(queue.ring.fault());
  }
}

TEMPLATE_TEST_CASE("Buffers that are longer than a length can say", "", SplitDriver, PackedDriver) {
  // Memory as long as that: the same page again and again.
  Guest guest;
  std::vector<Range> regions;
  for (uint64_t i = 0; i < 512; ++i)
    regions.push_back({i << 30, uint64_t{1} << 30, guest.at(Guest::kStart), 0, Access::kReadWrite});
  const AddressMap map = AddressMap::ofRegions(regions);
  TestType driver(guest, 8);
  typename TestType::Device ring(driver.setup(Direction::kTransmit), map);
  driver.add(std::vector<Element>(4, {0, 0x3fffffff}));
  driver.add(std::vector<Element>(4, {0, 0x40000000}));
  BufferList list;
  Lease lease;
  CHECK(fetch(ring, list, 64, lease) == 1);
  CHECK_THAT(describe(ring.fault()),
             Catch::EndsWith(": a buffer has 4294967296 bytes; at most 4294967295 are possible"));
}

TEMPLATE_TEST_CASE("Buffers of the other direction", "", SplitDriver, PackedDriver) {
  SECTION("to be written among those to send") {
    Queue<TestType> queue;
    queue.driver.add({queue.data, 100});
    SECTION("alone") {
      queue.driver.add({queue.data, 60, true});
    }
    SECTION("at a chain's end") {
      queue.driver.add(std::vector<Element>{{queue.data, 12}, {queue.data, 60, true}});
    }
    if constexpr (TestType::kFormat == Format::kSplit) SECTION("in a table") {
        queue.driver.addIndirect(std::vector<Element>{{queue.data, 12}, {queue.data, 60, true}});
      }
    CHECK_THAT(queue.faultAfterOne(),
               Catch::StartsWith("entry 1 of the ring: 60 bytes at 0x") &&
                   Catch::EndsWith(" are to be sent, but not for the device to read"));
  }
  SECTION("to be read among those to receive") {
    Queue<TestType> queue(Direction::kReceive);
    queue.driver.add({queue.data, 100, true});
    queue.driver.add(std::vector<Element>{{queue.data, 12, true}, {queue.data, 60}});
    CHECK_THAT(queue.faultAfterOne(),
               Catch::StartsWith("entry 1 of the ring: 60 bytes at 0x") &&
                   Catch::EndsWith(" are to receive, but not for the device to write"));
  }
}

TEST_CASE("Packed: DPDK's tables of a packet to send, whose header is marked as writable") {
  Queue<PackedDriver> queue;
  queue.driver.addIndirect(std::vector<Element>{{queue.data, 12, true}, {queue.data, 60}});
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 1);
  CHECK((*queue.list)[0].length == 72);
  CHECK_FALSE(queue.ring.fault());
}

TEMPLATE_TEST_CASE("Buffers to receive that cannot have the header (5.1.6.3.1)", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(Direction::kReceive);
  queue.driver.add({queue.data, 100, true});
  SECTION("short") {
    queue.driver.add({queue.data, 11, true});
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: a buffer to receive has 11 bytes; the header alone has 12");
  }
  SECTION("empty") {
    queue.driver.add({kOutside, 0, true});
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: a buffer to receive has 0 bytes; the header alone has 12");
  }
  SECTION("in pieces it can") {
    queue.driver.add(std::vector<Element>{{queue.data, 5, true}, {queue.data, 7, true}});
    CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 2);
    CHECK_FALSE(queue.ring.fault());
  }
}

TEMPLATE_TEST_CASE("Empty buffers to send are no fault", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue;
  queue.driver.add({kOutside, 0});
  queue.driver.add(std::vector<Element>{{kOutside, 0}, {queue.data, 0}});
  REQUIRE(fetch(queue.ring, *queue.list, 64, queue.lease) == 2);
  CHECK((*queue.list)[0].length == 0);
  CHECK((*queue.list)[1].length == 0);
  giveBack(queue.ring, *queue.list, queue.lease);
  CHECK(queue.driver.take().has_value());
  CHECK(queue.driver.take()->id == queue.driver.lastId());
}

TEMPLATE_TEST_CASE("Indirect tables that nobody agreed on, or of no size", "", SplitDriver,
                   PackedDriver) {
  SECTION("not negotiated") {
    Queue<TestType> queue(Direction::kTransmit, 256, false);
    queue.driver.add({queue.data, 100});
    queue.driver.addIndirect(std::vector<Element>(2, {queue.data, 10}));
    CHECK(queue.faultAfterOne() ==
          "entry 1 of the ring: an indirect table, which was not negotiated");
  }
  SECTION("of no size") {
    Queue<TestType> queue;
    queue.driver.add({queue.data, 100});
    const uint32_t bytes = GENERATE(0u, 15u, 17u, 40u);
    queue.driver.add(std::vector<Element>{{queue.data, bytes}}, flag::kIndirect);
    CHECK(queue.faultAfterOne() == "entry 1 of the ring: an indirect table of " +
                                       std::to_string(bytes) + " bytes; descriptors have 16 each");
  }
}

TEST_CASE("Split: a huge table is no harm where its chain is short") {
  Queue<SplitDriver> queue;
  queue.guest.put(queue.data, Descriptor{queue.data, 10, 0, 0});
  queue.driver.put(0, queue.data, 0xfffffff0, flag::kIndirect | flag::kWrite, 0);
  queue.driver.stage(0);
  queue.driver.expose();
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 1);
  CHECK((*queue.list)[0].length == 10);
}

TEST_CASE("Packed: a huge table is beyond the budget") {
  Queue<PackedDriver> queue;
  queue.driver.put(Guest::kStart, 0xfffffff0, flag::kIndirect, 0);
  CHECK(fetch(queue.ring, *queue.list, 64, queue.lease) == 0);
  CHECK(queue.ring.fault());
}
