// What is captured of a port: both directions, what is dropped and why, and how much of a frame.
#include "deviceplugin/datapath/switch/forwarding/capture.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/capture_ring.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/forwarder.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::PackedDriver;
using virtqueue::test::SplitDriver;

namespace {

constexpr uint16_t kA = 1, kB = 2;

// The captured port is `kA` or `kB` of two that know each other.
template <typename Driver>
struct Captured : Bench<Driver> {
  explicit Captured(uint16_t port, uint32_t snapLength = kMaxSnapLength)
      : Bench<Driver>(2), capture(memory.get(), 1, snapLength) {
    this->macs.addStatic(macOf(kA), 0, kA);
    this->macs.addStatic(macOf(kB), 0, kB);
    this->pod(port).view.capture = &capture;
  }

  struct Seen {
    bool received;
    std::string drop;  // empty: forwarded
    uint32_t length;
    Bytes bytes;
    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> take() { return take(this->time.now); }
  // What was captured from this time on.
  std::vector<Seen> take(uint64_t since) {
    std::vector<Seen> all;
    while (const CaptureRecord* record = reader.peek()) {
      all.push_back({record->received != 0,
                     record->drop ? kDropNames[record->drop - 1] : "",
                     record->length,
                     {reader.bytes(), reader.bytes() + record->captured}});
      CHECK(record->time >= since);
      CHECK(record->time <= this->time.now);
      reader.next();
    }
    reader.release();
    return all;
  }
  // The only one.
  Seen one() {
    const auto all = take();
    REQUIRE(all.size() == 1);
    return all[0];
  }

  UniqueFd memory = CaptureMemory::make(1);
  CaptureReader reader{memory.get(), 0};
  Capture capture;
};

template <typename Driver>
typename Captured<Driver>::Seen seen(bool received, const Bytes& bytes, const char* drop = "") {
  return {received, drop, static_cast<uint32_t>(bytes.size()), bytes};
}

}  // namespace

TEMPLATE_TEST_CASE("a capture has both directions of its port alone", "", SplitDriver,
                   PackedDriver) {
  Captured<TestType> bench(kA);
  const size_t length = GENERATE(14u, 60u, 64u, 65u, 1514u), pieces = GENERATE(1u, 2u, 5u);
  const Bytes there = frame(macOf(kB), macOf(kA), length),
              back = frame(macOf(kA), macOf(kB), length);
  bench.send(kA, there, {}, pieces);
  CHECK(bench.one() == seen<TestType>(false, there));
  bench.send(kB, back, {}, pieces);
  CHECK(bench.one() == seen<TestType>(true, back));
  CHECK(bench.pod(kA).next() == back);
  CHECK(bench.pod(kB).next() == there);
}

TEST_CASE("as many bytes of a frame as were asked for") {
  const uint32_t most = GENERATE(1u, 14u, 63u, 64u, 65u, 96u, 1514u, 2000u);
  Captured<SplitDriver> bench(kA, most);
  const Bytes bytes = frame(macOf(kB), macOf(kA), 1514);
  for (const size_t pieces : {1u, 3u}) {
    bench.send(kA, bytes, {}, pieces);
    const auto one = bench.one();
    CHECK(one.length == 1514);
    CHECK(one.bytes == Bytes(bytes.begin(), bytes.begin() + std::min<ptrdiff_t>(1514, most)));
  }
}

TEMPLATE_TEST_CASE("a capture has what a pod sent and the switch dropped", "", SplitDriver,
                   PackedDriver) {
  Captured<TestType> bench(kA);
  Bytes bytes = frame(macOf(kB), macOf(kA));
  const char* reason = "";
  size_t pieces = 1;
  virtqueue::NetHeader header;
  SECTION("runt") {
    bytes = frame(macOf(kB), macOf(kA), 13), reason = "runt";
  }
  SECTION("nothing behind the net header") {
    bytes = {}, reason = "runt";
  }
  SECTION("too long") {
    bench.pod(kA).view.maxFrame = 59, reason = "too_long";
  }
  SECTION("too many pieces") {
    bytes = frame(macOf(kB), macOf(kA), 200);
    pieces = Forwarder::kMaxPieces + 1, reason = "chain_too_long";
  }
  SECTION("link down") {
    bench.pod(kA).view.linkUp = false, reason = "link_down";
  }
  SECTION("tagged, of an access port") {
    bytes = tagged(bytes, 7), reason = "vlan";
  }
  SECTION("spoofed") {
    bench.pod(kA).view.spoofCheck = true;
    bytes = frame(macOf(kB), macOf(9)), reason = "spoofed";
  }
  SECTION("storm") {
    RateLimit limit(kHz);
    limit.setFrames(1);
    while (limit.police(1, bench.time.now)) {
    }
    bench.pod(kA).view.stormLimit = &limit;
    bench.send(kA, frame(kBroadcast, macOf(kA)));
    bench.pod(kA).view.stormLimit = nullptr;
    CHECK(bench.one() == seen<TestType>(false, frame(kBroadcast, macOf(kA)), "storm"));
  }
  SECTION("a request that does not fit") {
    bench.pod(kA).transmit->offloads = Offloads::kChecksum;
    header.flags = 1;  // VIRTIO_NET_HDR_F_NEEDS_CSUM
    header.checksumStart = 1000;
    reason = "bad_offload";
  }
  bench.send(kA, bytes, header, pieces);
  CHECK(bench.one() == seen<TestType>(false, bytes, reason));
  CHECK(bench.pod(kB).next().empty() == (*reason != 0));
}

TEST_CASE("in a burst each frame has its own reason") {
  Captured<SplitDriver> bench(kA);
  const Bytes good = frame(macOf(kB), macOf(kA)), bad = tagged(good, 7),
              runt = frame(macOf(kB), macOf(kA), 5);
  for (const auto* bytes : {&good, &bad, &good, &runt, &good}) bench.pod(kA).send(*bytes);
  bench.serve(kA);
  using Driver = SplitDriver;
  CHECK(bench.take() == std::vector{seen<Driver>(false, good), seen<Driver>(false, bad, "vlan"),
                                    seen<Driver>(false, good), seen<Driver>(false, runt, "runt"),
                                    seen<Driver>(false, good)});
  // Nothing of it is left for the next one.
  bench.send(kA, good);
  CHECK(bench.one() == seen<Driver>(false, good));
}

TEMPLATE_TEST_CASE("a capture has what a pod was to get and did not", "", SplitDriver,
                   PackedDriver) {
  Captured<TestType> bench(kB);
  const Bytes bytes = frame(macOf(kB), macOf(kA));
  const char* reason = "";
  RateLimit limit(kHz);
  SECTION("link down") {
    bench.pod(kB).view.linkUp = false, reason = "link_down";
  }
  SECTION("too long") {
    bench.pod(kB).view.maxFrame = 59, reason = "too_long";
  }
  SECTION("rate") {
    limit.set(1, 1514, 1);
    while (limit.police(60, bench.time.now)) {
    }
    bench.pod(kB).view.receiveLimit = &limit;
    reason = "rate";
  }
  SECTION("not connected") {
    bench.pod(kB).view.receiveCount = 0, reason = "rx_full";
  }
  SECTION("no buffers") {
    for (size_t i = 0; i < Pod<TestType>::kRingSize; ++i) bench.send(kA, bytes);
    for (const auto& each : bench.take()) CHECK(each == seen<TestType>(true, bytes));
    reason = "rx_full";
  }
  bench.send(kA, bytes);
  CHECK(bench.one() == seen<TestType>(true, bytes, reason));
}

TEST_CASE("tags are captured as the pod has them, with their priority") {
  Captured<SplitDriver> bench(kA);
  auto set = std::make_shared<VlanSet>();
  set->set(7);
  bench.pod(kA).view.trunk = set;
  bench.pod(kB).view.vlan = 7;
  bench.setMembers();
  bench.macs.addStatic(macOf(kA), 7, kA);
  const size_t length = GENERATE(14u, 56u, 60u, 64u, 68u, 200u);
  const Bytes plain = frame(macOf(kB), macOf(kA), length),
              back = frame(macOf(kA), macOf(kB), length);
  const uint16_t prioritised = 7 | 5 << 13;
  using Driver = SplitDriver;
  bench.send(kA, tagged(plain, prioritised));
  CHECK(bench.one() == seen<Driver>(false, tagged(plain, prioritised)));
  CHECK(bench.pod(kB).next() == plain);
  bench.send(kA, tagged(plain, 8));
  CHECK(bench.one() == seen<Driver>(false, tagged(plain, 8), "vlan"));
  bench.send(kB, back);
  CHECK(bench.one() == seen<Driver>(true, tagged(back, 7)));
  CHECK(bench.pod(kA).next() == tagged(back, 7));
  bench.pod(kA).view.receiveCount = 0;
  bench.send(kB, back);
  CHECK(bench.one() == seen<Driver>(true, tagged(back, 7), "rx_full"));
}

TEST_CASE("a reader that does not read costs frames of the capture alone") {
  Captured<SplitDriver> bench(kA);
  const Bytes bytes = frame(macOf(kB), macOf(kA), 1514);
  const size_t most = kCaptureRing / captureSize(1514);
  const uint64_t begin = bench.time.now;
  for (size_t i = 0; i < most + 100; ++i) {
    bench.time.now += kHz / 100;  // on a slow machine, a receiver may owe some time
    bench.send(kA, bytes);
    REQUIRE(bench.pod(kB).next() == bytes);
  }
  CHECK(bench.take(begin).size() == most);
  CHECK(bench.reader.dropped() == 100);
  bench.send(kA, bytes);
  CHECK(bench.one() == seen<SplitDriver>(false, bytes));
}
