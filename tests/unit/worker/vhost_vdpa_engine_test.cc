// The whole kernel engine with several queue pairs: a front-end's messages, the engine, and a
// device in user space that moves packets.
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"
#include "tests/unit/worker/user_space_device.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::worker;
using namespace vdpa::vhost_user::test;
using namespace vdpa::worker::test;

namespace {

using Pairs = std::vector<uint16_t>;
constexpr uint64_t kFeatures = feature::kVersion1 | feature::kMultiqueue;

void waitFor(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(condition());
}

struct Worker {
  explicit Worker(const std::string& path, uint32_t mostPairs = 16)
      : engine(loop, path, 0, mostPairs,
               {[this](bool up, const std::string& why) {
                  reason = up ? "up" : why;
                  loop.stop();
                },
                [] {}, [](const std::string&) {}}) {}

  // Waits until the engine reports its state, which it does in a moment.
  Worker& run() {
    EventLoop::Timer late(loop, [this] { loop.stop(); });
    late.start(std::chrono::seconds(10));
    loop.run();
    return *this;
  }

  EventLoop loop;
  std::string reason;
  VhostVdpaEngine engine;
};

// A front-end and its driver. Ring i is at 0x10000 + i * 0x4000, as addresses() has it.
class Pod {
 public:
  Pod(Worker& worker, uint32_t pairs, uint64_t features = kFeatures)
      : engine_(worker.engine),
        session_(offered(pairs)),
        pairs_(pairs),
        packed_(features & feature::kPackedRing),
        kicks_(size_t{2} * pairs),
        sent_(pairs),
        taken_(pairs) {
    engine_.follow(&session_.device());
    setUp(session_, features, protocol_feature::kMultiqueue | protocol_feature::kReplyAck);
    share();
    for (uint32_t pair = 0; pair < pairs_ && !packed_; ++pair)
      for (uint16_t slot = 0; slot < kBuffers; ++slot) post(2 * pair, slot, slot, true);
  }
  ~Pod() {
    engine_.release();
    ::munmap(memory_, kSize);
  }

  void tell(Message message) {
    session_.handle(std::move(message));
    engine_.update();
    reply_ = session_.takeReply();
  }

  // As front-ends do: each ring is kicked, then enabled.
  void start(uint32_t pair) {
    for (uint32_t ring = 2 * pair; ring < 2 * pair + 2; ++ring) {
      kick(ring);
      enable(ring, true);
    }
  }
  void startAll() {
    for (uint32_t pair = 0; pair < pairs_; ++pair) start(pair);
  }
  void kick(uint32_t ring) {
    kicks_[ring] = eventFd();
    tell(with(Request::SetVringKick, ring,
              UniqueFd(::fcntl(kicks_[ring].get(), F_DUPFD_CLOEXEC, 0))));
  }
  void enable(uint32_t ring, bool on) { tell(state(Request::SetVringEnable, ring, on)); }
  void enablePair(uint32_t pair, bool on) {
    enable(2 * pair, on);
    enable(2 * pair + 1, on);
  }
  // The device's position in the ring.
  uint32_t stop(uint32_t ring) {
    tell(state(Request::GetVringBase, ring, 0));
    VringState answer;
    std::memcpy(&answer, reply_->data() + sizeof(MessageHeader), sizeof answer);
    return answer.value;
  }

  // Continues in another file at the same addresses, with a copy of the contents.
  void move() {
    const std::vector<std::byte> copy(memory_, memory_ + kSize);
    ::munmap(memory_, kSize);
    share(copy.data());
  }

  void send(uint32_t pair, unsigned count = 8) {
    for (; count > 0; --count) {
      const auto slot = static_cast<uint16_t>(sent_[pair] % kBuffers);
      put(buffer(2 * pair + 1, slot) + kHeader, ++number_);
      post(2 * pair + 1, slot, sent_[pair]++, false);
    }
    ::eventfd_write(kicks_[2 * pair + 1].get(), 1);
  }
  uint64_t sent() const { return number_; }

  // Everything sent so far, each packet exactly once; returns how many came on each pair.
  std::vector<unsigned> receiveAll() {
    std::vector<unsigned> came(pairs_);
    waitFor([&] {
      for (uint32_t pair = 0; pair < pairs_; ++pair) came[pair] += take(pair);
      return numbers_.size() >= number_;
    });
    std::sort(numbers_.begin(), numbers_.end());
    for (size_t i = 0; i < numbers_.size(); ++i) REQUIRE(numbers_[i] == i + 1);
    return came;
  }

 private:
  static constexpr uint64_t kSize = 0x40000, kBase = 0x10000, kHeader = 12;
  static constexpr uint16_t kEntries = 256, kBuffers = 64;

  void share(const std::byte* content = nullptr) {
    UniqueFd file = memoryFile(kSize);
    memory_ = static_cast<std::byte*>(
        ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0));
    if (content) std::memcpy(memory_, content, kSize);
    tell(memoryTable(std::move(file), kSize, kBase));
  }
  template <typename T>
  T get(uint64_t offset) const {
    T value;
    std::memcpy(&value, memory_ + offset, sizeof value);
    return value;
  }
  template <typename T>
  void put(uint64_t offset, T value) {
    std::memcpy(memory_ + offset, &value, sizeof value);
  }
  static uint64_t ringAt(uint32_t ring) { return ring * 0x4000; }
  static uint64_t buffer(uint32_t ring, uint16_t slot) {
    return 0x20000 + ring * 0x4000 + slot * 64u;
  }
  void post(uint32_t ring, uint16_t slot, uint16_t index, bool writable) {
    const uint64_t descriptor = ringAt(ring) + slot * 16u;
    put<uint64_t>(descriptor, kBase + buffer(ring, slot));
    put<uint32_t>(descriptor + 8, writable ? 64 : kHeader + 8);
    put<uint16_t>(descriptor + 12, writable ? 2 : 0);
    put<uint16_t>(ringAt(ring) + 0x1004 + 2 * (index % kEntries), slot);
    std::atomic_thread_fence(std::memory_order_release);
    put<uint16_t>(ringAt(ring) + 0x1002, static_cast<uint16_t>(index + 1));
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  unsigned take(uint32_t pair) {
    unsigned count = 0;
    const uint64_t used = ringAt(2 * pair) + 0x2000;
    for (; taken_[pair] != get<uint16_t>(used + 2); ++taken_[pair], ++count) {
      std::atomic_thread_fence(std::memory_order_acquire);
      const auto slot =
          static_cast<uint16_t>(get<uint32_t>(used + 4 + 8 * (taken_[pair] % kEntries)));
      numbers_.push_back(get<uint64_t>(buffer(2 * pair, slot) + kHeader));
      post(2 * pair, slot, static_cast<uint16_t>(taken_[pair] + kBuffers), true);
    }
    return count;
  }

  VhostVdpaEngine& engine_;
  Session session_;
  const uint32_t pairs_;
  const bool packed_;
  std::byte* memory_ = nullptr;
  std::vector<UniqueFd> kicks_;
  std::vector<uint16_t> sent_, taken_;
  uint64_t number_ = 0;
  std::vector<uint64_t> numbers_;
  std::optional<std::vector<std::byte>> reply_;
};

// A front-end with fewer pairs leaves out the rest.
std::vector<unsigned> evenly(unsigned total, std::initializer_list<unsigned> of) {
  std::vector<unsigned> counts(of);
  for (auto& count : counts) count = count * total / 8;
  return counts;
}

}  // namespace

TEST_CASE("four pairs carry packets, and the device is told of them behind its data queues") {
  UserSpaceDevice device;
  Worker worker(device.path());
  CHECK(worker.run().reason == "up");
  CHECK(worker.engine.limits()->queuePairs == 4);
  Pod pod(worker, 4);
  pod.startAll();
  CHECK(worker.engine.running());
  CHECK(device.active() == 4);
  CHECK(device.enabled() == std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
  for (uint32_t pair = 0; pair < 4; ++pair) pod.send(pair);
  CHECK(pod.receiveAll() == evenly(32, {2, 2, 2, 2}));
  CHECK(device.faults().empty());
}

TEST_CASE("the number of pairs changes while they run, and nothing is stopped for it") {
  UserSpaceDevice device;
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4);
  pod.startAll();
  const unsigned starts = device.starts();
  const size_t before = device.told().size();

  pod.enablePair(3, false);
  pod.enablePair(2, false);
  CHECK(device.active() == 2);
  pod.send(0);
  pod.send(1);
  CHECK(pod.receiveAll() == evenly(16, {4, 4, 0, 0}));
  pod.enablePair(1, false);
  CHECK(device.active() == 1);
  pod.send(0);
  CHECK(pod.receiveAll() == evenly(8, {8, 0, 0, 0}));
  for (uint32_t pair = 1; pair < 4; ++pair) pod.enablePair(pair, true);
  CHECK(device.active() == 4);
  for (uint32_t pair = 0; pair < 4; ++pair) pod.send(pair);
  CHECK(pod.receiveAll() == evenly(32, {2, 2, 2, 2}));

  const Pairs told = device.told();
  CHECK(Pairs(told.begin() + before, told.end()) == Pairs{3, 2, 1, 2, 3, 4});
  CHECK(device.starts() == starts);
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}

TEST_CASE("pairs behind one that is not enabled are left out until it is") {
  UserSpaceDevice device;
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4);
  pod.startAll();
  pod.enable(3, false);
  CHECK(device.active() == 1);
  pod.enable(3, true);
  CHECK(device.active() == 4);
  CHECK(device.faults().empty());
}

TEST_CASE("a front-end with fewer pairs than the device") {
  UserSpaceDevice device;
  Worker worker(device.path(), GENERATE(16, 2));
  worker.run();
  Pod pod(worker, 2);
  SECTION("which starts two") {
    pod.startAll();
    CHECK(device.active() == 2);
    CHECK(device.enabled() == std::vector<uint32_t>{0, 1, 2, 3, 8});
    pod.send(0);
    pod.send(1);
    CHECK(pod.receiveAll() == evenly(16, {4, 4}));
  }
  SECTION("which starts one") {
    pod.start(0);
    CHECK(device.active() == 1);
    pod.send(0);
    CHECK(pod.receiveAll() == evenly(8, {8, 0}));
  }
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}

TEST_CASE("pairs that are enabled before their rings run are not used until then") {
  UserSpaceDevice device;
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4);
  for (uint32_t ring = 0; ring < 8; ++ring) pod.enable(ring, true);
  for (uint32_t ring = 0; ring < 4; ++ring) pod.kick(ring);
  CHECK(device.active() == 2);
  pod.send(0);
  pod.send(1);
  CHECK(pod.receiveAll() == evenly(16, {4, 4, 0, 0}));
  for (uint32_t ring = 4; ring < 8; ++ring) pod.kick(ring);
  CHECK(device.active() == 4);
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}

TEST_CASE("a front-end that can't enable rings has the pair that it starts") {
  UserSpaceDevice device;
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4);
  pod.tell(with(Request::SetFeatures, feature::kVersion1));
  pod.kick(0);
  pod.kick(1);
  CHECK(device.active() == 1);
  pod.send(0);
  CHECK(pod.receiveAll() == evenly(8, {8, 0, 0, 0}));
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}

TEST_CASE("four pairs are stopped and go on where they were") {
  UserSpaceDevice device({.suspends = GENERATE(true, false)});
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4);
  pod.startAll();
  for (uint32_t pair = 0; pair < 4; ++pair) pod.send(pair, 3 + pair);
  pod.receiveAll();
  const unsigned starts = device.starts();
  pod.move();
  CHECK(device.starts() == starts + 1);
  CHECK(device.active() == 4);
  for (uint32_t pair = 0; pair < 4; ++pair) pod.send(pair);
  CHECK(pod.receiveAll() == evenly(32, {2, 2, 2, 2}));

  // A pair is disabled and enabled again; the others continue.
  CHECK(pod.stop(6) > 0);
  CHECK(pod.stop(7) == 3 + 3 + 8);
  CHECK(device.active() == 3);
  for (uint32_t pair = 0; pair < 3; ++pair) pod.send(pair);
  CHECK(pod.receiveAll()[3] == 0);
  pod.start(3);
  CHECK(device.active() == 4);
  for (uint32_t pair = 0; pair < 4; ++pair) pod.send(pair);
  CHECK(pod.receiveAll() == evenly(32, {2, 2, 2, 2}));
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}

TEST_CASE("the pairs of packed rings") {
  UserSpaceDevice device;
  Worker worker(device.path());
  worker.run();
  Pod pod(worker, 4, kFeatures | feature::kPackedRing);
  pod.startAll();
  CHECK(device.active() == 4);
  pod.enablePair(3, false);
  CHECK(device.active() == 3);
  for (uint32_t ring = 0; ring < 8; ++ring) CHECK(pod.stop(ring) == 0x80008000);
  CHECK(device.faults().empty());
}

TEST_CASE("a device that refuses its pairs, or does not answer") {
  const bool deaf = GENERATE(false, true);
  UserSpaceDevice device({.answer = 1, .deaf = deaf});
  Worker worker(device.path());
  worker.run();
  const char* why = deaf ? "does not answer on its control queue" : "refuses to use 1 queue pairs";
  {
    Pod pod(worker, 4);
    CHECK_THROWS_WITH(pod.start(0), Catch::Contains(why));
    CHECK_FALSE(worker.engine.running());
  }
  CHECK_FALSE(worker.engine.up());
  CHECK_THAT(worker.reason, Catch::Contains(why));
  CHECK_FALSE(device.isOpen());
}

TEST_CASE("the next worker, and the next pod, find the device as the first did") {
  UserSpaceDevice device;
  {
    Worker worker(device.path());
    worker.run();
    for (const uint32_t pairs : {4, 1, 3}) {
      Pod pod(worker, 4);
      for (uint32_t pair = 0; pair < pairs; ++pair) pod.start(pair);
      CHECK(device.active() == pairs);
      for (uint32_t pair = 0; pair < pairs; ++pair) pod.send(pair, pairs);
      pod.receiveAll();
    }
    Worker second(device.path());
    CHECK_THAT(second.run().reason, Catch::Contains("another program has it"));
  }
  CHECK_FALSE(device.isOpen());
  Worker worker(device.path());
  CHECK(worker.run().reason == "up");
  Pod pod(worker, 4);
  pod.startAll();
  CHECK(device.active() == 4);
  pod.send(3);
  CHECK(pod.receiveAll() == evenly(8, {2, 2, 2, 2}));
  CHECK(device.lost() == 0);
  CHECK(device.faults().empty());
}
