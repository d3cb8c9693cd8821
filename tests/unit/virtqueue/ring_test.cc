// Rules of both formats: buffers come in order, once, and go back.
#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/lease_order.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

// A transmit queue with both its sides.
template <typename Driver>
struct Queue {
  explicit Queue(uint32_t size, bool eventIndex = false, uint16_t start = 0)
      : driver(guest, size, eventIndex, start),
        ring(driver.connect(Direction::kTransmit)),
        data(guest.allocate(4096)) {}

  Element element(uint32_t length = 100) const { return {data, length}; }
  size_t fetch(size_t most = 64) { return vdpa::virtqueue::fetch(ring, *list, most, lease); }
  bool giveBack() { return vdpa::virtqueue::giveBack(ring, *list, lease); }

  Guest guest;
  Driver driver;
  typename Driver::Device ring;
  uint64_t data;
  std::unique_ptr<BufferList> list = std::make_unique<BufferList>();
  Lease lease;
};

std::vector<uint32_t> lengthsOf(const BufferList& list, const Buffer& buffer) {
  std::vector<uint32_t> lengths;
  for (const Segment& segment : list.segments(buffer)) lengths.push_back(segment.length);
  return lengths;
}

}  // namespace

TEMPLATE_TEST_CASE("A ring of every kind of size runs for several laps", "", SplitDriver,
                   PackedDriver) {
  const uint32_t size = GENERATE(1u, 2u, 4u, 64u, 256u, 1024u, 32768u);
  Queue<TestType> queue(size);
  uint32_t added = 0, taken = 0;
  while (taken < 3 * size + 5) {
    while (queue.driver.add(queue.element(1 + added % 1000))) ++added;
    const size_t count = queue.fetch(33);
    REQUIRE(count > 0);
    for (size_t i = 0; i < count; ++i) REQUIRE((*queue.list)[i].length == 1 + (taken + i) % 1000);
    taken += static_cast<uint32_t>(count);
    queue.giveBack();
    for (size_t i = 0; i < count; ++i) REQUIRE(queue.driver.take().has_value());
    REQUIRE_FALSE(queue.driver.take().has_value());
  }
  CHECK_FALSE(queue.ring.fault());
}

TEST_CASE("A packed ring need not have a power of two of entries") {
  const uint32_t size = GENERATE(3u, 5u, 100u, 32767u);
  Queue<PackedDriver> queue(size);
  for (uint32_t lap = 0; lap < 4 * size; lap += 2) {
    const std::vector<Element> chain{queue.element(10), queue.element(20)};
    REQUIRE(queue.driver.add(chain));
    REQUIRE(queue.fetch() == 1);
    REQUIRE((*queue.list)[0].length == 30);
    queue.giveBack();
    REQUIRE(queue.driver.take()->id == queue.driver.lastId());
  }
}

TEMPLATE_TEST_CASE("An empty ring has nothing", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(16);
  CHECK_FALSE(queue.ring.available());
  CHECK(queue.fetch() == 0);
  CHECK_FALSE(queue.giveBack());
  CHECK_FALSE(queue.ring.fault());
  queue.driver.add(queue.element());
  CHECK(queue.ring.available());
  CHECK(queue.fetch() == 1);
  CHECK_FALSE(queue.ring.available());
}

TEMPLATE_TEST_CASE("A buffer is where its driver put it", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(16);
  queue.driver.add(Element{queue.data + 3, 77});
  REQUIRE(queue.fetch() == 1);
  const Buffer& buffer = (*queue.list)[0];
  CHECK(buffer.data == queue.guest.at(queue.data + 3));
  CHECK(buffer.length == 77);
  CHECK(buffer.pieces == 1);
  CHECK(buffer.id == queue.driver.lastId());
}

TEMPLATE_TEST_CASE("What was read ahead and not taken comes again", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(16);
  for (uint32_t i = 0; i < 10; ++i) queue.driver.add(queue.element(i + 1));
  queue.list->clear();
  REQUIRE(queue.ring.read(*queue.list, 4) == 4);
  REQUIRE(queue.ring.read(*queue.list, 4) == 4);
  CHECK((*queue.list)[7].length == 8);
  queue.lease = queue.ring.take(*queue.list, 3);
  CHECK(queue.lease.count == 3);
  CHECK(queue.fetch() == 7);
  CHECK((*queue.list)[0].length == 4);
}

TEMPLATE_TEST_CASE("A chain is one buffer", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(8, false, 5);  // it wraps around the ring's end
  const std::vector<Element> chain{queue.element(10), queue.element(20), queue.element(0),
                                   queue.element(30), queue.element(5)};
  for (int i = 0; i < 20; ++i) {
    REQUIRE(queue.driver.add(chain));
    REQUIRE(queue.driver.add(queue.element(99)));
    REQUIRE(queue.fetch() == 2);
    CHECK((*queue.list)[0].length == 65);
    // One without bytes is no piece.
    CHECK(lengthsOf(*queue.list, (*queue.list)[0]) == std::vector<uint32_t>{10, 20, 30, 5});
    CHECK((*queue.list)[1].length == 99);
    queue.giveBack();
    REQUIRE(queue.driver.take().has_value());
    REQUIRE(queue.driver.take()->id == queue.driver.lastId());
  }
}

TEMPLATE_TEST_CASE("A chain may have all entries of the ring, and no more", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(8);
  const std::vector<Element> chain(8, queue.element(10));
  REQUIRE(queue.driver.add(chain));
  REQUIRE(queue.fetch() == 1);
  CHECK((*queue.list)[0].length == 80);
  queue.giveBack();
  CHECK(queue.driver.take()->id == queue.driver.lastId());
}

TEMPLATE_TEST_CASE("An indirect table is one buffer, and one entry", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(4);
  const std::vector<Element> elements{queue.element(12), queue.element(1000), queue.element(500),
                                      queue.element(3),  queue.element(1),    queue.element(2)};
  for (int i = 0; i < 9; ++i) {
    REQUIRE(queue.driver.addIndirect(elements));
    REQUIRE(queue.fetch() == 1);
    const Buffer& buffer = (*queue.list)[0];
    CHECK(lengthsOf(*queue.list, buffer) == std::vector<uint32_t>{12, 1000, 500, 3, 1, 2});
    CHECK(buffer.entries == 1);
    queue.giveBack();
    CHECK(queue.driver.take()->id == queue.driver.lastId());
  }
}

TEST_CASE("In a split ring, descriptors may precede a table (2.7.5.3.2)") {
  Queue<SplitDriver> queue(8);
  const std::vector<Element> before{queue.element(12), queue.element(40)};
  const std::vector<Element> table{queue.element(1000), queue.element(1)};
  REQUIRE(queue.driver.addIndirect(table, before));
  REQUIRE(queue.fetch() == 1);
  CHECK(lengthsOf(*queue.list, (*queue.list)[0]) == std::vector<uint32_t>{12, 40, 1000, 1});
}

TEMPLATE_TEST_CASE("A list that is full leaves the rest for later", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(1024);
  SECTION("of buffers") {
    for (uint32_t i = 0; i < 600; ++i) queue.driver.add(queue.element(i + 1));
    CHECK(queue.fetch(1024) == BufferList::kMaxBuffers);
    CHECK(queue.list->exhausted());
    queue.giveBack();
    CHECK(queue.fetch(1024) == 600 - BufferList::kMaxBuffers);
    CHECK((*queue.list)[0].length == BufferList::kMaxBuffers + 1);
    CHECK_FALSE(queue.list->exhausted());
  }
  SECTION("of segments") {
    for (uint32_t i = 0; i < 40; ++i)
      queue.driver.addIndirect(std::vector<Element>(60, queue.element(10)));
    size_t fetched = 0;
    for (size_t count; (count = queue.fetch()) > 0; fetched += count) queue.giveBack();
    CHECK(fetched == 40);
  }
  SECTION("of descriptors without bytes: they cost a look, too") {
    std::vector<Element> empty(60, queue.element(0));
    empty.push_back(queue.element(10));
    for (uint32_t i = 0; i < 40; ++i) queue.driver.addIndirect(empty);
    CHECK(queue.fetch() < 20);
    CHECK(queue.list->exhausted());
    CHECK(queue.list->segmentCount() < 20);
    queue.giveBack();
    CHECK(queue.fetch() > 0);
  }
  CHECK_FALSE(queue.ring.fault());
}

TEMPLATE_TEST_CASE("Notifications without event indexes", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(16);
  const auto pass = [&] {
    queue.driver.add(queue.element());
    queue.fetch();
    return queue.giveBack();
  };
  queue.driver.noCalls();
  // The device that had the ring before may have died before it notified.
  CHECK(pass());
  CHECK_FALSE(pass());
  queue.driver.allCalls();
  CHECK(pass());
  CHECK(pass());
  queue.driver.noCalls();
  CHECK_FALSE(pass());

  auto mark = queue.driver.mark();
  CHECK_FALSE(queue.ring.requestNotifications());
  queue.driver.add(queue.element());
  CHECK(queue.driver.wantsKick(mark));
  CHECK(queue.ring.requestNotifications());  // something came before the request
  queue.ring.suppressNotifications();
  mark = queue.driver.mark();
  queue.driver.add(queue.element());
  CHECK_FALSE(queue.driver.wantsKick(mark));
}

TEMPLATE_TEST_CASE("Notifications with event indexes", "", SplitDriver, PackedDriver) {
  // From positions at which indexes and wrap counters turn over.
  const uint16_t start = GENERATE(0, 5, 65530, 32767);
  Queue<TestType> queue(8, true, start);
  const auto pass = [&](int count) {
    for (int i = 0; i < count; ++i) queue.driver.add(queue.element());
    queue.fetch();
    const bool notified = queue.giveBack();
    while (queue.driver.take()) {
    }
    return notified;
  };
  REQUIRE(pass(1));
  for (int lap = 0; lap < 40; ++lap) {
    queue.driver.callAfter(1);
    REQUIRE(pass(1));
    REQUIRE_FALSE(pass(1));  // the event is behind
    REQUIRE_FALSE(pass(2));
    queue.driver.callAfter(5);
    REQUIRE_FALSE(pass(4));
    REQUIRE(pass(1));
    queue.driver.callAfter(3);
    REQUIRE(pass(8));
    REQUIRE_FALSE(pass(1));

    const auto mark = queue.driver.mark();
    REQUIRE_FALSE(queue.ring.requestNotifications());
    queue.driver.add(queue.element());
    REQUIRE(queue.driver.wantsKick(mark));
    const auto next = queue.driver.mark();
    queue.driver.add(queue.element());
    if constexpr (TestType::kFormat == Format::kSplit) REQUIRE_FALSE(queue.driver.wantsKick(next));
    queue.ring.suppressNotifications();
    REQUIRE_FALSE(queue.driver.wantsKick(next));
    pass(0);
  }
}

TEST_CASE("The event flag of a packed ring counts only where it was negotiated (2.8.10)") {
  Queue<PackedDriver> queue(8);
  queue.driver.callAfter(100);
  for (int i = 0; i < 3; ++i) {
    queue.driver.add(queue.element());
    queue.fetch();
    CHECK(queue.giveBack());
  }
}

TEMPLATE_TEST_CASE("Leases appear in their order, whenever they are published", "", SplitDriver,
                   PackedDriver) {
  const bool chains = GENERATE(false, true);
  Queue<TestType> queue(16, false, 13);
  std::vector<uint16_t> ids;
  for (int i = 0; i < 6; ++i) {
    if (chains)
      queue.driver.add(std::vector<Element>(2, queue.element(10)));
    else
      queue.driver.add(queue.element());
    ids.push_back(queue.driver.lastId());
  }
  std::vector<std::unique_ptr<BufferList>> lists;
  std::vector<Lease> leases(3);
  for (Lease& lease : leases) {
    lists.push_back(std::make_unique<BufferList>());
    REQUIRE(fetch(queue.ring, *lists.back(), 2, lease) == 2);
  }
  queue.driver.allCalls();
  const auto finish = [&](size_t i) { return giveBack(queue.ring, *lists[i], leases[i]); };
  CHECK(queue.ring.openLeases() == 3);
  CHECK_FALSE(finish(2));
  CHECK(queue.ring.openLeases() == 3);
  CHECK_FALSE(queue.driver.take().has_value());
  CHECK_FALSE(finish(1));
  CHECK_FALSE(queue.driver.take().has_value());
  CHECK(finish(0));  // and the others with it
  CHECK(queue.ring.openLeases() == 0);
  for (const uint16_t id : ids) CHECK(queue.driver.take()->id == id);
  CHECK_FALSE(queue.driver.take().has_value());
}

TEMPLATE_TEST_CASE("A notification is decided for all leases that appear at once", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(16, true);
  BufferList second;
  Lease later;
  queue.driver.add(queue.element());
  queue.fetch();
  queue.giveBack();  // the first is always told
  queue.driver.take();
  for (int i = 0; i < 4; ++i) queue.driver.add(queue.element());
  queue.driver.callAfter(4);  // which is in the later lease
  queue.fetch(2);
  REQUIRE(fetch(queue.ring, second, 2, later) == 2);
  CHECK_FALSE(giveBack(queue.ring, second, later));
  CHECK(queue.giveBack());
}

TEMPLATE_TEST_CASE("No more leases are open than are kept in order", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(128);
  for (int i = 0; i < 100; ++i) queue.driver.add(queue.element());
  std::vector<std::unique_ptr<BufferList>> lists;
  std::vector<Lease> leases;
  for (size_t i = 0; i < LeaseOrder::kMaxLeases; ++i) {
    lists.push_back(std::make_unique<BufferList>());
    leases.emplace_back();
    REQUIRE(fetch(queue.ring, *lists.back(), 1, leases.back()) == 1);
  }
  CHECK(queue.fetch() == 0);
  for (size_t i = leases.size(); i-- > 0;) giveBack(queue.ring, *lists[i], leases[i]);
  for (size_t i = 0; i < leases.size(); ++i) CHECK(queue.driver.take().has_value());
  CHECK(queue.fetch() == 100 - LeaseOrder::kMaxLeases);
}

TEMPLATE_TEST_CASE("A device continues where another one stopped", "", SplitDriver, PackedDriver) {
  Queue<TestType> queue(8, false, 6);
  for (int lap = 0; lap < 10; ++lap) {
    for (int i = 0; i < 5; ++i) queue.driver.add(queue.element());
    queue.fetch(3);
    queue.giveBack();
    RingSetup setup = queue.driver.setup(Direction::kTransmit);
    setup.start = queue.ring.positions();
    CHECK(positionsOf(baseOf(setup.start, TestType::kFormat), TestType::kFormat, 8) == setup.start);
    typename TestType::Device next(setup, queue.guest.map());
    BufferList list;
    Lease lease;
    REQUIRE(fetch(next, list, 64, lease) == 2);
    CHECK(giveBack(next, list, lease));
    for (int i = 0; i < 5; ++i) REQUIRE(queue.driver.take().has_value());
    setup.start = next.positions();
    std::destroy_at(&queue.ring);
    std::construct_at(&queue.ring, setup, queue.guest.map());
  }
}

TEMPLATE_TEST_CASE("Each side has its position: buffers that were taken stay open", "", SplitDriver,
                   PackedDriver) {
  Queue<TestType> queue(8);
  for (int i = 0; i < 8; ++i) queue.driver.add(queue.element());
  queue.fetch(3);  // and never gives them back
  RingSetup setup = queue.driver.setup(Direction::kTransmit);
  setup.start = queue.ring.positions();
  typename TestType::Device next(setup, queue.guest.map());
  BufferList list;
  Lease lease;
  CHECK(fetch(next, list, 64, lease) == 5);
  giveBack(next, list, lease);
  for (int i = 0; i < 5; ++i) CHECK(queue.driver.take().has_value());
  CHECK_FALSE(queue.driver.take().has_value());
  CHECK_FALSE(next.fault());
}
