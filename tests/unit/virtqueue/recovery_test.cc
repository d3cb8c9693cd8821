// A device that is killed at any step: where it was is found in the ring, as vdpa-worker finds it,
// and the next device goes on from there. No buffer is lost, and none comes twice but those that
// were in flight.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "deviceplugin/datapath/vhost_user/packed_position.h"
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
namespace vhost_user = vdpa::vhost_user;

namespace {

constexpr uint32_t kSize = 13;

uint32_t recoverPosition(SplitDriver& driver) {
  return load<uint16_t>(driver.device(split::kIndex));
}

uint32_t recoverPosition(PackedDriver& driver) {
  std::vector<PackedDescriptor> ring(driver.size());
  std::memcpy(ring.data(), driver.descriptorAt(0), ring.size() * sizeof ring[0]);
  const vhost_user::PackedPosition position = vhost_user::packedPosition(0, ring);
  for (const auto& [entry, descriptor] : position.unfinished)
    std::memcpy(driver.descriptorAt(static_cast<uint32_t>(entry)), &descriptor, sizeof descriptor);
  return position.base | position.base << 16;
}

bool anyUsed(SplitDriver&) {
  return true;
}

// Whether a descriptor says where the device was; among chains, nothing else does.
bool anyUsed(PackedDriver& driver) {
  for (uint32_t i = 0; i < driver.size(); ++i) {
    const auto flags = load<uint16_t>(driver.descriptorAt(i) + 14);
    if (!(flags & flag::kAvailable) == !(flags & flag::kUsed)) return true;
  }
  return false;
}

}  // namespace

TEMPLATE_TEST_CASE("A device that dies is followed by one that goes on", "", SplitDriver,
                   PackedDriver) {
  Guest guest;
  const uint32_t size = TestType::kFormat == Format::kSplit ? 16 : kSize;
  TestType driver(guest, size);
  auto ring = std::make_unique<typename TestType::Device>(driver.connect(Direction::kTransmit));
  const uint64_t data = guest.allocate(64);
  const bool chains = GENERATE(false, true);
  std::mt19937 random(GENERATE(range(1u, 9u)));
  const auto number = [&random](uint32_t below) { return static_cast<uint32_t>(random() % below); };

  std::map<uint16_t, int> open;  // by ID: how often a device has taken it
  size_t returned = 0, again = 0;
  BufferList list;
  Lease lease;
  for (int step = 0; step < 3000; ++step) {
    while (number(3) != 0) {
      if (!driver.add(std::vector<Element>(chains ? 1 + number(3) : 1, {data, 1}))) break;
      open[driver.lastId()] = 0;
    }
    const size_t count = fetch(*ring, list, 1 + number(6), lease);
    for (size_t i = 0; i < count; ++i) again += open.at(list[i].id)++ > 0;
    // Dies with a burst taken, filled, or given back; mostly it lives on.
    enum Death : uint32_t { kTaken, kFilled, kPublished, kLives };
    const auto death = static_cast<Death>(std::min<uint32_t>(number(10), kLives));
    if (death != kTaken) ring->fill(lease, list);
    if (death != kTaken && death != kFilled) ring->publish(lease);
    if (death <= kPublished && (!chains || anyUsed(driver))) {
      RingSetup setup = driver.setup(Direction::kTransmit);
      setup.start = positionsOf(recoverPosition(driver), TestType::kFormat, size);
      ring = std::make_unique<typename TestType::Device>(setup, guest.map());
    } else if (death == kTaken) {
      giveBack(*ring, list, lease);
    }
    while (number(4) != 0) {
      const auto used = driver.take();
      if (!used) break;
      REQUIRE(open.at(used->id) > 0);
      open.erase(used->id);
      ++returned;
    }
    REQUIRE_FALSE(ring->fault());
  }
  while (fetch(*ring, list, 64, lease) > 0) {
    for (size_t i = 0; i < lease.count; ++i) ++open.at(list[i].id);
    giveBack(*ring, list, lease);
  }
  while (const auto used = driver.take()) open.erase(used->id);
  CHECK(open.empty());
  CHECK(returned > 3000);
  CHECK(again > 0);
}
