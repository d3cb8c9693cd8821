// What the kernel's engine offers the pod and sends to the device, and where it keeps its memory.
#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <thread>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/control_queue.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"
#include "tests/unit/worker/device_ring.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::worker;

namespace {

constexpr uint64_t kAccessPlatform = bit(33);
constexpr uint64_t kSteering = feature::kControlQueue | feature::kMultiqueue;
constexpr uint64_t kData = feature::kVersion1 | feature::kMergeableBuffers | feature::kPackedRing;

VhostVdpaDevice::Facts facts(uint64_t features, uint32_t virtqueues, uint16_t pairs) {
  VhostVdpaDevice::Facts facts;
  facts.features = features;
  facts.virtqueues = virtqueues;
  facts.config.maxQueuePairs = pairs;
  facts.config.mac = MacAddress({0x52, 0x54, 0, 0, 3, 1});
  return facts;
}

MemoryTable memoryOf(std::initializer_list<std::pair<uint64_t, uint64_t>> regions) {
  WireMemoryTable table{};
  Message message;
  message.request = Request::SetMemTable;
  uint64_t user = 0x10000;
  for (const auto& [guest, size] : regions) {
    table.regions[table.regionCount++] = {guest, size, user, 0};
    user += size + 0x1000;
    UniqueFd file(::memfd_create("region", MFD_CLOEXEC));
    REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
    message.descriptors.push_back(std::move(file));
  }
  message.payload.resize(sizeof table);
  std::memcpy(message.payload.data(), &table, sizeof table);
  return MemoryTable(std::move(message));
}

}  // namespace

TEST_CASE("one pair without a control queue, several with one") {
  CHECK(limitsOf(facts(kData, 2, 1), 16).queuePairs == 1);
  CHECK(limitsOf(facts(kData | feature::kMultiqueue, 4, 2), 16).queuePairs == 1);
  CHECK(limitsOf(facts(kData | kSteering, 3, 1), 16).queuePairs == 1);
  CHECK(limitsOf(facts(kData | kSteering, 9, 4), 16).queuePairs == 4);
  CHECK(limitsOf(facts(kData | kSteering, 9, 4), 2).queuePairs == 2);
  CHECK(limitsOf(facts(kData | kSteering, 5, 4), 16).queuePairs == 2);
  CHECK(limitsOf(facts(kData | kSteering, 5, 0), 16).queuePairs == 1);
  const auto one = limitsOf(facts(kData | feature::kMultiqueue, 4, 2), 16);
  CHECK((one.features & feature::kMultiqueue) == 0);
  CHECK((one.features & feature::kProtocolFeatures) != 0);
  CHECK((one.features & kData) == kData);
}

TEST_CASE("MAC and MTU are the device's, if it has them") {
  auto device = facts(kData, 2, 1);
  device.config.mtu = 9000;
  CHECK(limitsOf(device, 1).mac == device.config.mac);
  CHECK_FALSE(limitsOf(device, 1).mtu);  // not without the feature
  device.features |= feature::kMtu;
  CHECK(limitsOf(device, 1).mtu == 9000);
  device.config.mac = MacAddress();
  CHECK_FALSE(limitsOf(device, 1).mac);
}

TEST_CASE("the device is told what the driver took, less what others answer for") {
  const auto device = facts(kData | kSteering | kAccessPlatform, 5, 2);
  const uint64_t driver = kData | kSteering | feature::kControlReceive | feature::kGuestAnnounce |
                          feature::kProtocolFeatures;
  CHECK(deviceFeatures(device, driver, 1) == (kData | kAccessPlatform));
  CHECK(deviceFeatures(device, driver, 2) == (kData | kAccessPlatform | kSteering));
  CHECK(deviceFeatures(device, feature::kVersion1, 1) == (feature::kVersion1 | kAccessPlatform));
  CHECK(deviceFeatures(facts(kData, 2, 1), driver, 1) == kData);
}

TEST_CASE("the worker's own memory lies beside the pod's") {
  auto device = facts(kData, 2, 1);
  device.lastIova = 0xffffffff;
  CHECK(freeIova(device, memoryOf({{0x1000, 0x4000}}), 4096) == 0xfffff000);
  CHECK(freeIova(device, memoryOf({{0xfff00000, 0x100000}}), 4096) == 0xffeff000);
  // Between two regions, if the addresses above are taken.
  CHECK(freeIova(device, memoryOf({{0xffff0000, 0x10000}, {0xfffe0000, 0xf000}}), 4096) ==
        0xfffef000);
  device.firstIova = 0x10000;
  device.lastIova = 0x1ffff;
  CHECK_THROWS_AS(freeIova(device, memoryOf({{0x10000, 0x10000}}), 4096), ProtocolError);
  CHECK(freeIova(device, memoryOf({{0x11000, 0xf000}}), 4096) == 0x10000);
  device.firstIova = 0;
  device.lastIova = UINT64_MAX;
  const uint64_t high = freeIova(device, memoryOf({{0x7f0000000000, 0x200000}}), 4096);
  CHECK(high % 4096 == 0);
  CHECK(high > 0x7f0000200000);
}

namespace {

// The device, which answers as often as it is kicked.
class Device {
 public:
  Device(ControlQueue& queue, uint64_t iova, bool packed, uint8_t answer)
      : queue_(queue),
        answer_(answer),
        ring_(queue.queue(), packed,
              [memory = static_cast<std::byte*>(queue.memory()), iova](uint64_t address, uint64_t) {
                return memory + (address - iova);
              }),
        thread_([this] { run(); }) {}
  ~Device() {
    stop_ = true;
    ::eventfd_write(queue_.queue().kick, 1);
    thread_.join();
  }
  std::vector<uint16_t> pairs() const { return pairs_; }

 private:
  void run() {
    for (;;) {
      pollfd kicked{queue_.queue().kick, POLLIN, 0};
      ::poll(&kicked, 1, -1);
      eventfd_t ignored;
      ::eventfd_read(queue_.queue().kick, &ignored);
      if (stop_) return;
      while (const auto chain = ring_.take()) {
        answer(chain->buffers);
        ring_.put(*chain, 1);
      }
      ::eventfd_write(queue_.queue().call, 1);
    }
  }
  void answer(const std::vector<test::DeviceRing::Buffer>& parts) {
    REQUIRE(parts.size() == 3);
    CHECK(parts[0].data[0] == std::byte{4});
    CHECK(parts[0].data[1] == std::byte{0});
    uint16_t pairs;
    std::memcpy(&pairs, parts[1].data, sizeof pairs);
    pairs_.push_back(pairs);
    *parts[2].data = std::byte{answer_};
  }

  ControlQueue& queue_;
  const uint8_t answer_;
  test::DeviceRing ring_;
  std::vector<uint16_t> pairs_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

TEST_CASE("the control queue, round and round") {
  const bool packed = GENERATE(false, true);
  ControlQueue queue(4, 0xfffff000, packed);
  CHECK(queue.queue().index == 4);
  std::vector<uint16_t> asked;
  {
    Device device(queue, 0xfffff000, packed, 0);
    for (uint16_t i = 1; i <= 20; ++i) {
      queue.usePairs(i);
      asked.push_back(i);
    }
    CHECK(device.pairs() == asked);
  }
}

TEST_CASE("a control queue that refuses, and one that is silent") {
  ControlQueue queue(2, 0x1000, false);
  CHECK_THROWS_WITH(queue.usePairs(2), Catch::Contains("does not answer"));
  ControlQueue other(2, 0x1000, false);
  Device device(other, 0x1000, false, 1);
  CHECK_THROWS_WITH(other.usePairs(3), Catch::Contains("refuses to use 3 queue pairs"));
}

// A plain file stands for the node: it can be found and opened, and every ioctl fails, as on a
// device that is not available yet.
TEST_CASE("a node made anew under the name is not opened, whatever the engine is waiting for") {
  std::string directory = "/tmp/vdpa-engine-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()));
  const std::string path = directory + "/vhost-vdpa-0";
  std::ofstream(path) << "";
  const bool known = GENERATE(false, true);
  struct stat node {};
  REQUIRE(::stat(path.c_str(), &node) == 0);
  EventLoop loop;
  std::vector<std::string> reasons;
  const auto state = [&](bool up, const std::string& reason) {
    CHECK_FALSE(up);
    reasons.push_back(reason);
    if (reasons.size() > 1) return loop.stop();
    // While it is retried.
    std::ofstream(path + ".new") << "";
    std::filesystem::rename(path + ".new", path);
  };
  VhostVdpaEngine engine(loop, path, known ? node.st_ino : 0, 1,
                         {state, [] {}, [](const std::string&) {}});
  EventLoop::Timer end(loop, [&] { loop.stop(); });
  end.start(std::chrono::seconds(10));
  loop.run();
  REQUIRE(reasons.size() == 2);
  CHECK_THAT(reasons[0], Catch::Contains("cannot get its device ID"));
  CHECK(reasons[1] == path + " is gone");
  // Permanently: another device has its old name now.
  end.start(std::chrono::milliseconds(300));
  loop.run();
  CHECK(reasons.size() == 2);
  std::filesystem::remove_all(directory);
}

TEST_CASE("a worker that starts after its node was made anew leaves it alone") {
  std::string path = "/tmp/vdpa-node-XXXXXX";
  UniqueFd file(::mkstemp(path.data()));
  struct stat node {};
  REQUIRE(::fstat(file.get(), &node) == 0);
  EventLoop loop;
  std::vector<std::string> reasons;
  VhostVdpaEngine engine(loop, path, node.st_ino + 1, 1,
                         {[&](bool, const std::string& reason) {
                            reasons.push_back(reason);
                            loop.stop();
                          },
                          [] {}, [](const std::string&) {}});
  loop.run();
  CHECK(reasons == std::vector{path + " is gone"});
  CHECK_THROWS_WITH(VhostVdpaDevice(path, node.st_ino + 1),
                    Catch::Contains("belongs to another device"));
  ::unlink(path.c_str());
}
