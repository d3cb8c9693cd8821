// The log of dirty pages: every page that the device wrote to is in it, before the driver knows.
#include "deviceplugin/datapath/virtqueue/dirty_log.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

constexpr uint64_t kPage = DirtyLog::kPageSize;

std::set<uint64_t> pagesIn(const std::vector<std::byte>& bits) {
  std::set<uint64_t> pages;
  for (uint64_t page = 0; page < bits.size() * 8; ++page)
    if ((bits[page / 8] >> page % 8 & std::byte{1}) != std::byte{0}) pages.insert(page);
  return pages;
}

// The pages of a guest whose content changed.
class Changes {
 public:
  explicit Changes(Guest& guest)
      : guest_(guest), before_(guest.bytes(Guest::kStart, guest.size())) {}

  std::set<uint64_t> pages() const {
    std::set<uint64_t> changed;
    for (size_t i = 0; i < guest_.size(); i += kPage)
      if (std::memcmp(&before_[i], guest_.at(Guest::kStart + i), kPage) != 0)
        changed.insert((Guest::kStart + i) / kPage);
    return changed;
  }

 private:
  Guest& guest_;
  std::vector<std::byte> before_;
};

}  // namespace

TEST_CASE("Pages are marked by their bits") {
  std::vector<std::byte> bits(2);
  const DirtyLog log(bits);
  const auto marked = [&](uint64_t address, uint64_t length) {
    std::fill(bits.begin(), bits.end(), std::byte{0});
    log.mark(address, length);
    return pagesIn(bits);
  };
  CHECK(marked(0, 0).empty());
  CHECK(marked(0, 1) == std::set<uint64_t>{0});
  CHECK(marked(4095, 1) == std::set<uint64_t>{0});
  CHECK(marked(4095, 2) == std::set<uint64_t>{0, 1});
  CHECK(marked(8 * kPage, kPage) == std::set<uint64_t>{8});
  CHECK(marked(6 * kPage + 5, 2 * kPage) == std::set<uint64_t>{6, 7, 8});
  // Pages beyond its bits.
  CHECK(marked(15 * kPage, 100 * kPage) == std::set<uint64_t>{15});
  CHECK(marked(16 * kPage, 1).empty());
  CHECK(marked(UINT64_MAX, UINT64_MAX).empty());
  CHECK(marked(15 * kPage, UINT64_MAX) == std::set<uint64_t>{15});
  CHECK_NOTHROW(DirtyLog({}).mark(0, 1));
}

TEMPLATE_TEST_CASE("All that a device writes is logged, and nothing else", "", SplitDriver,
                   PackedDriver) {
  const bool eventIndex = GENERATE(false, true);
  Guest guest(1 << 20);
  guest.allocate(3000);  // so that the ring's areas lie across pages
  // From an entry whose used element is not in the page of the used index.
  TestType driver(guest, 512, eventIndex, 505);
  guest.allocate(kPage, kPage);
  std::vector<Element> elements;
  for (int i = 0; i < 20; ++i) elements.push_back({guest.allocate(6000), 6000, true});
  auto ring = driver.connect(Direction::kReceive);
  std::vector<std::byte> bits((Guest::kStart + guest.size()) / kPage / 8);
  const DirtyLog log(bits);
  ring.setLog(&log);
  for (size_t i = 0; i + 1 < elements.size(); i += 2)
    driver.add(std::span(elements).subspan(i, i % 4 == 0 ? 1 : 2));

  const Changes changes(guest);
  ring.suppressNotifications();
  ring.requestNotifications();
  const std::vector<std::byte> packet(5000, std::byte{0xa5});
  const std::vector<uint32_t> lengths{5000, 100, 9000, 1};
  std::vector<Place> places(lengths.size());
  BufferList list;
  Lease lease;
  REQUIRE(reserve(ring, {kHeaderSize, true}, lengths, places, list, lease) == lengths.size());
  std::vector<std::byte> bytes(9000, std::byte{0xa5});
  for (size_t i = 0; i < places.size(); ++i)
    write(list, places[i], {kHeaderSize, true}, {}, frameOf(bytes.data(), lengths[i]));
  ring.fill(lease, list);
  // The buffers are logged before the driver can see that they are used.
  CHECK_FALSE(pagesIn(bits).empty());
  REQUIRE_FALSE(driver.take().has_value());
  ring.publish(lease);
  REQUIRE(driver.take().has_value());

  const auto logged = pagesIn(bits);
  const auto changed = changes.pages();
  for (const uint64_t page : changed) {
    INFO("page " << page);
    CHECK(logged.contains(page));
  }
  CHECK(logged.size() <= changed.size() + 1);  // an event that was 0 and is
}

TEMPLATE_TEST_CASE("Buffers that were sent are not dirty, the ring is", "", SplitDriver,
                   PackedDriver) {
  Guest guest(1 << 20);
  TestType driver(guest, 16);
  const uint64_t data = guest.allocate(kPage, kPage);
  auto ring = driver.connect(Direction::kTransmit);
  std::vector<std::byte> bits((Guest::kStart + guest.size()) / kPage / 8);
  const DirtyLog log(bits);
  ring.setLog(&log);
  driver.add({data, 100});
  BufferList list;
  Lease lease;
  fetch(ring, list, 64, lease);
  giveBack(ring, list, lease);
  CHECK(pagesIn(bits) == std::set<uint64_t>{Guest::kStart / kPage});
}
