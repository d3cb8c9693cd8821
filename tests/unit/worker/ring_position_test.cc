// Where a dead engine stopped: split rings by their indexes, packed ones with a model of driver and
// device that is stopped at every step.
#include "deviceplugin/datapath/vhost_user/ring_position.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/packed_position.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;
using vdpa::virtqueue::PackedDescriptor;
namespace flag = vdpa::virtqueue::flag;

namespace {

// A packed ring with a driver that chains arbitrarily and a device that works like rte_vhost: in
// order, leaving NEXT unchanged, and marking the first buffer of a burst last.
class PackedModel {
 public:
  explicit PackedModel(size_t size) : ring(size), available_{0, true}, used_{0, true} {}

  std::vector<PackedDescriptor> ring;

  bool add(size_t length) {
    if (free_ < length) return false;
    free_ -= length;
    const uint16_t id = nextId_++;
    const Place head = available_;
    std::vector<uint16_t> flags;
    for (size_t i = 0; i < length; ++i) {
      PackedDescriptor& entry = ring[available_.index];
      entry = {0x1000, 64, static_cast<uint16_t>(i + 1 == length ? id : 0xdead), 0};
      entry.flags = static_cast<uint16_t>((i + 1 < length ? flag::kNext : 0) |
                                          (available_.wrap ? flag::kAvailable : flag::kUsed));
      advance(available_, 1);
    }
    open_.push_back({head, length, id});
    return true;
  }

  // The device returns `count` buffers in one burst; `complete`: including the mark of the first.
  void work(size_t count, bool complete) {
    count = std::min(count, open_.size());
    if (count == 0) return;
    const auto first = open_.front();
    for (size_t i = 0; i < count; ++i) {
      const Buffer buffer = open_.front();
      open_.pop_front();
      if (i > 0) mark(buffer);
      returned_.push_back(buffer);
      advance(used_, buffer.length);
    }
    if (complete)
      mark(first);
    else if (count == 1)
      throw std::logic_error("a burst of one is complete or has not happened");
  }

  // The driver takes the returned buffers that it can see.
  void reclaim(size_t count) {
    for (; count > 0 && !returned_.empty() && isUsed(returned_.front()); --count) {
      free_ += returned_.front().length;
      returned_.pop_front();
    }
  }

  uint32_t base() const { return static_cast<uint32_t>(used_.index) | (used_.wrap ? 0x8000u : 0u); }
  size_t unreclaimed() const { return returned_.size(); }
  bool anyUsed() const {
    return std::any_of(ring.begin(), ring.end(), [](const PackedDescriptor& entry) {
      return !(entry.flags & flag::kAvailable) == !(entry.flags & flag::kUsed);
    });
  }
  bool anyChain() const {
    return std::any_of(ring.begin(), ring.end(),
                       [](const PackedDescriptor& entry) { return entry.flags & flag::kNext; });
  }

 private:
  struct Place {
    size_t index;
    bool wrap;
  };
  struct Buffer {
    Place head;
    size_t length;
    uint16_t id;
  };

  void advance(Place& place, size_t count) {
    place.index += count;
    if (place.index < ring.size()) return;
    place.index -= ring.size();
    place.wrap = !place.wrap;
  }
  void mark(const Buffer& buffer) {
    PackedDescriptor& entry = ring[buffer.head.index];
    constexpr uint16_t both = flag::kAvailable | flag::kUsed;
    entry.id = buffer.id;
    entry.flags =
        static_cast<uint16_t>(buffer.head.wrap ? entry.flags | both : entry.flags & ~both);
  }
  bool isUsed(const Buffer& buffer) const {
    const uint16_t flags = ring[buffer.head.index].flags;
    const bool available = flags & flag::kAvailable, used = flags & flag::kUsed;
    return available == used && used == buffer.head.wrap;
  }

  Place available_, used_;
  size_t free_ = ring.size();
  uint16_t nextId_ = 0;
  std::deque<Buffer> open_, returned_;
};

// A split ring in memory: available and used index as given.
void checkSplit(uint16_t available, uint16_t used, const std::function<void(Session&)>& check) {
  UniqueFd file = memoryFile(0x10000);
  const int raw = file.get();
  Session session(offered());
  session.handle(with(Request::SetFeatures, feature::kVersion1));
  session.handle(memoryTable(std::move(file), 0x10000));
  session.handle(state(Request::SetVringNum, 0, 256));
  session.handle(addresses(0));
  REQUIRE(::pwrite(raw, &available, 2, 0x1002) == 2);
  REQUIRE(::pwrite(raw, &used, 2, 0x2002) == 2);
  check(session);
}

}  // namespace

TEST_CASE("a split ring goes on at its used index") {
  const auto [available, used] =
      GENERATE(table<uint16_t, uint16_t>({{0, 0}, {300, 100}, {5, 65530}, {256, 0}, {7, 7}}));
  checkSplit(available, used, [used = used](Session& session) {
    CHECK(recoverPosition(session.device(), 0) == used);
  });
}

TEST_CASE("a split ring whose indexes are further apart than its size") {
  checkSplit(257, 0, [](Session& session) {
    CHECK_THROWS_WITH(recoverPosition(session.device(), 0),
                      Catch::Contains("257 buffers are open in 256 entries") &&
                          Catch::Contains("the driver must reset"));
  });
}

TEST_CASE("a ring whose memory was truncated") {
  checkSplit(0, 0, [](Session& session) {
    REQUIRE(::ftruncate(session.device().memory->regions()[0].file->get(), 0x1000) == 0);
    CHECK_THROWS_WITH(recoverPosition(session.device(), 0), Catch::Contains("truncated"));
  });
}

TEST_CASE("a packed ring that was never used") {
  PackedModel model(8);
  CHECK(packedPosition(0, model.ring).base == 0x8000);
  model.add(1);
  CHECK(packedPosition(0, model.ring).base == 0x8000);
  while (model.add(1)) {
  }
  CHECK(packedPosition(0, model.ring).base == 0x8000);
}

TEST_CASE("packed rings of single buffers: every position, whole bursts") {
  const size_t size = GENERATE(1u, 2u, 7u, 16u);
  std::mt19937 random(static_cast<unsigned>(size));
  PackedModel model(size);
  for (int step = 0; step < 20000; ++step) {
    switch (random() % 3) {
      case 0:
        model.add(1);
        break;
      case 1:
        model.work(random() % 4 + 1, true);
        break;
      case 2:
        model.reclaim(random() % 4 + 1);
        break;
    }
    const PackedPosition found = packedPosition(0, model.ring);
    REQUIRE(found.base == model.base());
    REQUIRE(found.unfinished.empty());
  }
}

TEST_CASE("packed rings of chains: every position that can be told, whole bursts") {
  const size_t size = GENERATE(5u, 16u);
  std::mt19937 random(static_cast<unsigned>(size));
  PackedModel model(size);
  int found = 0;
  for (int step = 0; step < 20000; ++step) {
    switch (random() % 3) {
      case 0:
        model.add(random() % 4 + 1);
        break;
      case 1:
        model.work(random() % 4 + 1, true);
        break;
      case 2:
        model.reclaim(random() % 4 + 1);
        break;
    }
    if (!model.anyUsed()) {  // without a visible chain, the rest of one cannot be detected
      if (model.anyChain())
        REQUIRE_THROWS_WITH(packedPosition(0, model.ring),
                            Catch::Contains("cannot determine where the engine stopped"));
      continue;
    }
    ++found;
    const PackedPosition position = packedPosition(0, model.ring);
    REQUIRE(position.base == model.base());
    if (model.anyChain()) REQUIRE(position.unfinished.empty());
  }
  CHECK(found > 10000);
}

TEST_CASE("an engine killed before it marked the first buffer of its burst") {
  const size_t size = GENERATE(4u, 7u, 16u);
  std::mt19937 random(static_cast<unsigned>(size));
  int bursts = 0;
  for (int run = 0; run < 2000; ++run) {
    PackedModel model(size);
    for (size_t step = random() % 60; step > 0; --step) {
      switch (random() % 3) {
        case 0:
          model.add(1);
          break;
        case 1:
          model.work(random() % 4 + 1, true);
          break;
        case 2:
          model.reclaim(random() % 4 + 1);
          break;
      }
    }
    model.add(1);
    if (!model.add(1)) continue;
    model.work(2 + random() % 3, false);
    for (size_t count = random() % 8; count > 0; --count)
      random() % 2 ? void(model.add(1)) : model.reclaim(1);
    ++bursts;

    const PackedPosition found = packedPosition(0, model.ring);
    REQUIRE(found.base == model.base());
    REQUIRE(found.unfinished.size() == 1);
    model.ring[found.unfinished[0].first] = found.unfinished[0].second;
    model.reclaim(size);
    REQUIRE(model.unreclaimed() == 0);  // the driver sees all of them
    const PackedPosition repaired = packedPosition(0, model.ring);
    REQUIRE(repaired.base == model.base());
    REQUIRE(repaired.unfinished.empty());
  }
  CHECK(bursts > 500);
}

TEST_CASE("packed flags that contradict each other") {
  constexpr uint16_t usedNow = flag::kAvailable | flag::kUsed, usedBefore = 0;
  std::vector<PackedDescriptor> ring(4);
  ring[0].flags = usedNow;
  ring[1].flags = usedBefore;
  ring[2].flags = usedNow;
  CHECK_THROWS_WITH(packedPosition(3, ring), Catch::Contains("ring 3") &&
                                                 Catch::Contains("at entry 2") &&
                                                 Catch::Contains("the driver must reset"));
}

TEST_CASE("packed rings of garbage: an answer or a refusal, nothing else") {
  std::mt19937 random(7);
  for (int run = 0; run < 20000; ++run) {
    std::vector<PackedDescriptor> ring(random() % 9 + 1);
    for (PackedDescriptor& entry : ring) entry.flags = static_cast<uint16_t>(random());
    try {
      const PackedPosition found = packedPosition(0, ring);
      REQUIRE((found.base & 0x7fff) < ring.size());
      for (const auto& entry : found.unfinished) REQUIRE(entry.first < ring.size());
    } catch (const ProtocolError&) {
    }
  }
}
