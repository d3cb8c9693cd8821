// Where frames go, what is dropped, and by which name: one forwarder, driven by hand.
#include "deviceplugin/datapath/switch/forwarding/forwarder.h"

#include <catch2/catch.hpp>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"
#include "deviceplugin/datapath/switch/forwarding/spin_lock.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/switch/packets.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::PackedDriver;
using virtqueue::test::SplitDriver;

namespace {

constexpr uint16_t kA = 1, kB = 2, kC = 3;

}  // namespace

TEMPLATE_TEST_CASE("an unknown destination is flooded, a learned one is not", "", SplitDriver,
                   PackedDriver) {
  Bench<TestType> bench(3);
  const size_t length = GENERATE(14u, 60u, 64u, 65u, 1514u);
  const Bytes there = frame(macOf(kB), macOf(kA), length),
              back = frame(macOf(kA), macOf(kB), length);
  bench.send(kA, there);
  CHECK(bench.pod(kA).next().empty());
  CHECK(bench.pod(kB).next() == there);
  CHECK(bench.pod(kC).next() == there);
  bench.send(kB, back);
  CHECK(bench.pod(kA).next() == back);
  CHECK(bench.pod(kC).next().empty());
  bench.send(kA, there);
  CHECK(bench.pod(kB).next() == there);
  CHECK(bench.pod(kC).next().empty());
  const Counters& counters = bench.pod(kA).port.counters[0];
  CHECK(counters.txPackets.get() == 2);
  CHECK(counters.txBytes.get() == 2 * length);
  CHECK(counters.rxPackets.get() == 1);
  CHECK(counters.rxBytes.get() == length);
}

TEMPLATE_TEST_CASE("a burst to several destinations arrives in order", "", SplitDriver,
                   PackedDriver) {
  Bench<TestType> bench(3);
  bench.macs.addStatic(macOf(kB), 0, kB);
  bench.macs.addStatic(macOf(kC), 0, kC);
  std::vector<Bytes> toB, toC;
  for (size_t i = 0; i < 64; ++i) {
    const Bytes bytes = frame(i % 5 == 0 ? kBroadcast : macOf(i % 2 ? kB : kC), macOf(kA), 60 + i);
    if (i % 5 == 0 || i % 2 == 1) toB.push_back(bytes);
    if (i % 5 == 0 || i % 2 == 0) toC.push_back(bytes);
    REQUIRE(bench.pod(kA).send(bytes));
  }
  CHECK(bench.serve(kA) == 64);
  for (const Bytes& bytes : toB) CHECK(bench.pod(kB).next() == bytes);
  for (const Bytes& bytes : toC) CHECK(bench.pod(kC).next() == bytes);
  CHECK(bench.pod(kB).next().empty());
  CHECK(bench.serve(kA) == 0);
}

TEST_CASE("an access port has one VLAN and no tags") {
  Bench<SplitDriver> bench(3);
  bench.pod(kA).view.vlan = bench.pod(kB).view.vlan = 7;
  bench.pod(kC).view.vlan = 8;
  bench.setMembers();
  const Bytes bytes = frame(kBroadcast, macOf(kA));
  bench.send(kA, bytes);
  CHECK(bench.pod(kB).next() == bytes);
  CHECK(bench.pod(kC).next().empty());
  bench.send(kA, frame(kBroadcast, macOf(kA), 60, 7));
  CHECK(bench.pod(kB).next().empty());
  CHECK(bench.pod(kA).drops(Drop::vlan) == 1);
  // An address of another VLAN is unknown in this one.
  bench.macs.addStatic(macOf(kC), 8, kC);
  bench.send(kA, frame(macOf(kC), macOf(kA)));
  CHECK(bench.pod(kC).next().empty());
  CHECK_FALSE(bench.pod(kB).next().empty());
}

TEMPLATE_TEST_CASE("a trunk port has tags of its set, and a native VLAN", "", SplitDriver,
                   PackedDriver) {
  Bench<TestType> bench(3);
  auto set = std::make_shared<VlanSet>();
  set->set(7).set(9);
  bench.pod(kA).view.trunk = set;
  bench.pod(kA).view.vlan = 5;
  bench.pod(kB).view.vlan = 7;
  bench.pod(kC).view.trunk = set;
  bench.setMembers();
  const size_t length = GENERATE(14u, 56u, 60u, 64u, 68u, 200u, 1514u);
  const size_t pieces = GENERATE(1u, 2u, 12u);
  CAPTURE(length, pieces);
  const Bytes plain = frame(kBroadcast, macOf(kA), length),
              reply = frame(kBroadcast, macOf(kB), length);
  const auto send = [&](const Bytes& bytes) { bench.send(kA, bytes, {}, pieces); };
  send(tagged(plain, 7));
  CHECK(bench.pod(kB).next() == plain);
  CHECK(bench.pod(kC).next() == tagged(plain, 7));
  send(tagged(plain, 9));
  CHECK(bench.pod(kB).next().empty());
  CHECK(bench.pod(kC).next() == tagged(plain, 9));
  bench.send(kB, reply, {}, pieces);
  CHECK(bench.pod(kA).next() == tagged(reply, 7));
  CHECK(bench.pod(kC).next() == tagged(reply, 7));

  SECTION("untagged frames have the native VLAN") {
    bench.pod(kB).view.vlan = 5;
    bench.setMembers();
    send(plain);
    CHECK(bench.pod(kB).next() == plain);
    CHECK(bench.pod(kC).next().empty());
    bench.send(kB, reply, {}, pieces);
    CHECK(bench.pod(kA).next() == reply);
  }
  SECTION("without one they are dropped") {
    bench.send(kC, frame(kBroadcast, macOf(kC), length), {}, pieces);
    CHECK(bench.pod(kC).drops(Drop::vlan) == 1);
    CHECK(bench.pod(kA).next().empty());
  }
  SECTION("a VLAN that it lacks, the native one as a tag, two tags, another kind of tag") {
    send(tagged(plain, 8));
    send(tagged(plain, 5));
    send(tagged(plain, 0));
    send(tagged(tagged(plain, 7), 7));
    Bytes service = tagged(plain, 7);
    service[12] = std::byte{0x88}, service[13] = std::byte{0xa8};
    send(service);
    CHECK(bench.pod(kA).drops(Drop::vlan) == 5);
    CHECK(bench.pod(kB).next().empty());
    CHECK(bench.pod(kC).next().empty());
  }
  SECTION("a tag that the frame has no room for") {
    Bytes cut = tagged(plain, 7);
    cut.resize(17);
    bench.send(kA, cut);
    CHECK(bench.pod(kA).drops(Drop::vlan) == 1);
  }
}

TEST_CASE("a tag counts as bytes, but not for the length of a frame") {
  Bench<SplitDriver> bench(2);
  auto set = std::make_shared<VlanSet>();
  set->set(7);
  bench.pod(kA).view.trunk = set;
  bench.pod(kB).view.vlan = 7;
  bench.setMembers();
  bench.send(kA, frame(kBroadcast, macOf(kA), 1514, 7));
  CHECK(bench.pod(kB).next().size() == 1514);
  CHECK(bench.pod(kA).port.counters[0].txBytes.get() == 1518);
  CHECK(bench.pod(kB).port.counters[0].rxBytes.get() == 1514);
  bench.send(kB, frame(kBroadcast, macOf(kB), 1514));
  CHECK(bench.pod(kA).next().size() == 1518);
  CHECK(bench.pod(kA).port.counters[0].rxBytes.get() == 1518);
  bench.send(kA, frame(kBroadcast, macOf(kA), 1515, 7));
  CHECK(bench.pod(kA).drops(Drop::tooLong) == 1);
}

TEST_CASE("addresses that a pod may not send from") {
  Bench<SplitDriver> bench(3);
  bench.macs.addStatic(macOf(kA), 0, kA);
  bench.macs.addStatic(macOf(kB), 0, kB);
  PortView& view = bench.pod(kA).view;
  const auto spoofed = [&](uint64_t from) {
    const uint64_t before = bench.pod(kA).drops(Drop::spoofed);
    bench.send(kA, frame(kBroadcast, from));
    bench.send(kA, frame(kBroadcast, from));  // as remembered
    const uint64_t drops = bench.pod(kA).drops(Drop::spoofed) - before;
    CHECK((drops == 0 || drops == 2));
    return drops == 2;
  };
  CHECK(spoofed(macOf(kA) | 1ull << 40));  // a group
  CHECK_FALSE(spoofed(0x020000009999));
  view.spoofCheck = true;
  ++bench.time.generation;
  CHECK_FALSE(spoofed(macOf(kA)));
  CHECK(spoofed(0x020000009999));
  CHECK(spoofed(macOf(kB)));
  view.trust = true;
  ++bench.time.generation;
  CHECK_FALSE(spoofed(0x020000009999));
  CHECK(spoofed(macOf(kB)));
  CHECK(bench.macs.lookup(macOf(kB), 0, 1) == kB);
}

TEST_CASE("what is remembered of addresses is forgotten in time") {
  Bench<SplitDriver> bench(3);
  const Bytes toB = frame(macOf(kB), macOf(kA));
  bench.send(kB, frame(kBroadcast, macOf(kB)));
  bench.pod(kA).received(), bench.pod(kC).received();
  bench.send(kA, toB);
  CHECK(bench.pod(kB).received().size() == 1);
  SECTION("the station moves") {
    bench.send(kC, frame(kBroadcast, macOf(kB)));
    bench.pod(kA).received(), bench.pod(kB).received();
    bench.send(kA, toB);
    CHECK(bench.pod(kB).received().empty());
    CHECK(bench.pod(kC).received().size() == 1);
  }
  SECTION("its port goes") {
    bench.macs.removePort(kB);
    bench.send(kA, toB);
    CHECK(bench.pod(kC).received().size() == 1);
  }
  SECTION("it is not heard of for too long") {
    bench.time.seconds += MacTable::kAgeing + 1;
    bench.send(kA, toB);
    CHECK(bench.pod(kC).received().size() == 1);
  }
  SECTION("its port changes the VLAN") {
    bench.pod(kB).view.vlan = 3;
    bench.setMembers();
    bench.send(kA, toB);
    CHECK(bench.pod(kB).received().empty());
    CHECK(bench.pod(kC).received().size() == 1);
  }
  SECTION("the sender is learned again in each second") {
    bench.time.seconds += MacTable::kAgeing;
    bench.send(kA, toB);
    CHECK(bench.macs.lookup(macOf(kA), 0, bench.time.seconds + MacTable::kAgeing) == kA);
  }
}

TEST_CASE("a frame to its own port goes nowhere") {
  Bench<SplitDriver> bench(2);
  bench.send(kA, frame(kBroadcast, 0x02000000aaaa));
  bench.pod(kB).received();
  bench.send(kA, frame(0x02000000aaaa, macOf(kA)));
  CHECK(bench.pod(kB).received().empty());
  CHECK(bench.pod(kA).received().empty());
  CHECK(bench.pod(kA).drops() == 0);
}

TEMPLATE_TEST_CASE("frames that are dropped, and their names", "", SplitDriver, PackedDriver) {
  Bench<TestType> bench(2);
  bench.macs.addStatic(macOf(kB), 0, kB);
  const Bytes good = frame(macOf(kB), macOf(kA));
  SECTION("shorter than a header, and nothing behind the net header") {
    bench.send(kA, frame(macOf(kB), macOf(kA), 13));
    bench.send(kA, {});
    CHECK(bench.pod(kA).drops(Drop::runt) == 2);
  }
  SECTION("longer than its sender's MTU, and than its receiver's") {
    bench.pod(kA).view.maxFrame = 100;
    bench.send(kA, frame(macOf(kB), macOf(kA), 101));
    CHECK(bench.pod(kA).drops(Drop::tooLong) == 1);
    bench.pod(kB).view.maxFrame = 99;
    bench.send(kA, frame(macOf(kB), macOf(kA), 100));
    CHECK(bench.pod(kB).drops(Drop::tooLong) == 1);
  }
  SECTION("without a link") {
    bench.pod(kB).view.linkUp = false;
    bench.send(kA, good);
    CHECK(bench.pod(kB).drops(Drop::linkDown) == 1);
    bench.pod(kA).view.linkUp = false;
    bench.send(kA, good);
    CHECK(bench.pod(kA).drops(Drop::linkDown) == 1);
    CHECK(bench.pod(kA).port.counters[0].txPackets.get() == 1);
  }
  SECTION("in too many pieces, up to which they pass") {
    bench.send(kA, frame(macOf(kB), macOf(kA), 200), {}, Forwarder::kMaxPieces);
    CHECK(bench.pod(kB).next().size() == 200);
    bench.send(kA, frame(macOf(kB), macOf(kA), 200), {}, Forwarder::kMaxPieces + 1);
    CHECK(bench.pod(kA).drops(Drop::chainTooLong) == 1);
    CHECK_FALSE(bench.pod(kA).transmit->broken);
  }
  SECTION("to a pod without buffers, or without a connection") {
    for (int i = 0; i < 3; ++i)
      for (int k = 0; k < 50; ++k) bench.send(kA, good);
    CHECK(bench.pod(kB).drops(Drop::rxFull) == 150 - Pod<TestType>::kRingSize);
    bench.pod(kB).view.receiveCount = 0;
    bench.send(kA, good);
    CHECK(bench.pod(kB).drops(Drop::rxFull) == 151 - Pod<TestType>::kRingSize);
  }
  CHECK(bench.pod(kA).drops() + bench.pod(kB).drops() > 0);
}

TEST_CASE("a storm is limited, frames to one port are not") {
  Bench<SplitDriver> bench(2);
  bench.macs.addStatic(macOf(kB), 0, kB);
  RateLimit storm(kHz);
  storm.setFrames(100);
  bench.pod(kA).view.stormLimit = &storm;
  for (int i = 0; i < 60; ++i) bench.send(kA, frame(i % 2 ? kBroadcast : macOf(99), macOf(kA)));
  for (int i = 0; i < 60; ++i) bench.send(kA, frame(macOf(kB), macOf(kA)));
  // 100 ms of the rate at once, and the one that ends in debt.
  CHECK(bench.pod(kA).drops(Drop::storm) == 60 - 11);
  CHECK(bench.pod(kB).received().size() == 60 + 11);
  bench.time.now += kHz / 10;
  for (int i = 0; i < 60; ++i) bench.send(kA, frame(kBroadcast, macOf(kA)));
  CHECK(bench.pod(kB).received().size() == 10);
}

TEST_CASE("a storm of frames that are to be segmented is one of their segments") {
  Bench<SplitDriver> bench(2);
  bench.pod(kA).transmit->offloads = Offloads::kChecksum | Offloads::kTso4;
  const auto send = [&](unsigned segments) {
    const Packet packet = makePacket({}, 10u * segments);  // to an address that nobody has
    REQUIRE(
        bench.pod(kA).send(packet.bytes, {.flags = 1,
                                          .gsoType = virtqueue::gso::kTcp4,
                                          .gsoSize = 10,
                                          .checksumStart = static_cast<uint16_t>(packet.transport),
                                          .checksumOffset = 16}));
  };
  SECTION("by its limit") {
    RateLimit storm(kHz);
    storm.setFrames(100);
    bench.pod(kA).view.stormLimit = &storm;
    for (int i = 0; i < 3; ++i) send(8);
    bench.serve(kA);
    // 10 at once, of which the second frame leaves a debt of 6.
    CHECK(bench.pod(kB).received().size() == 16);
    CHECK(bench.pod(kA).drops(Drop::storm) == 1);
    CHECK(storm.paidAt() == Approx(kHz + kHz * 6 / 100).epsilon(0.0001));
  }
  SECTION("by what one burst may bring") {
    for (const unsigned segments : {Forwarder::kMaxFlooded + 1, 60u, 60u, 9u, 8u}) send(segments);
    bench.serve(kA);
    CHECK(bench.pod(kA).drops(Drop::storm) == 2);
    CHECK(bench.pod(kB).received().size() == Forwarder::kMaxFlooded);
    send(8);
    bench.serve(kA);
    CHECK(bench.pod(kB).received().size() == 8);
  }
}

TEST_CASE("a pod receives no faster than its limit") {
  Bench<SplitDriver> bench(2);
  bench.macs.addStatic(macOf(kB), 0, kB);
  RateLimit limit(kHz);
  limit.set(8, 1514);  // 1 MB/s: 10,000 bytes at once
  bench.pod(kB).view.receiveLimit = &limit;
  for (int i = 0; i < 50; ++i) bench.send(kA, frame(macOf(kB), macOf(kA), 1000));
  CHECK(bench.pod(kB).received().size() == 11);
  CHECK(bench.pod(kB).drops(Drop::rate) == 39);
  limit.set(8, 1514, 20);  // 20 KiB
  bench.time.now += kHz;
  for (int i = 0; i < 50; ++i) bench.send(kA, frame(macOf(kB), macOf(kA), 1024));
  CHECK(bench.pod(kB).received().size() == 21);
}

TEST_CASE("the bytes that a pod sends are charged to its limit") {
  Bench<SplitDriver> bench(2);
  RateLimit limit(kHz);
  limit.set(8, 1514);
  bench.pod(kA).view.sendLimit = &limit;
  for (int i = 0; i < 20; ++i) bench.send(kA, frame(macOf(kB), macOf(kA), 1000));
  // 20,000 bytes, less the credit of 10 ms.
  CHECK(limit.paidAt() == Approx(kHz + kHz / 100).epsilon(0.0001));
}

TEMPLATE_TEST_CASE("a frame that is dropped costs no more than the longest that passes", "",
                   SplitDriver, PackedDriver) {
  Bench<TestType> bench(2);
  auto& pod = bench.pod(kA);
  RateLimit limit(kHz);
  limit.set(8, 1514);
  pod.view.sendLimit = &limit;
  std::vector<virtqueue::test::Element> elements{{pod.memory, 1 << 20}};
  SECTION("for its length") {}
  SECTION("for its length, with what it asks for") {
    pod.transmit->offloads = Offloads::kChecksum;
    pod.guest.put(pod.memory, NetHeader{.flags = 1, .checksumStart = 34, .checksumOffset = 6});
  }
  SECTION("for its tag") {
    pod.guest.put(pod.memory + kHeaderSize + 12, uint32_t{0x07000081});
  }
  SECTION("for its pieces") {
    elements.assign(Forwarder::kMaxPieces + 1, elements[0]);
  }
  REQUIRE(pod.sends.add(elements));
  bench.serve(kA);
  CHECK(pod.drops() == 1);
  CHECK(pod.port.counters[0].txPackets.get() == 1);
  CHECK(pod.port.counters[0].txBytes.get() == 1514);
  // The credit of 10 ms, less 1,514 bytes.
  CHECK(limit.paidAt() == Approx(kHz - kHz / 100 + 1514 * (kHz / 1'000'000)).epsilon(1e-9));
}

TEST_CASE("nobody waits for a receiver whose ring another poller has") {
  Bench<SplitDriver> bench(3);
  bench.pod(kB).port.counters = std::vector<Counters>(2);
  const Bytes bytes = frame(kBroadcast, macOf(kA));
  SpinLock& lock = bench.pod(kB).receive->lock;
  lock.lock();
  bench.send(kA, bytes);
  lock.unlock();
  CHECK(bench.pod(kB).drops(Drop::rxFull) == 1);
  CHECK(bench.pod(kC).next() == bytes);
  bench.send(kA, bytes);
  CHECK(bench.pod(kB).next() == bytes);
}

TEST_CASE("a receiver pays for what its pages cost, and gets nothing until it has") {
  constexpr size_t kPage = 4096, kPieces = 200;
  Bench<SplitDriver> bench(3);
  // Connected anew, with one buffer of pieces in as many pages that come and go.
  bench.pods[1] = std::make_unique<Pod<SplitDriver>>(kB);
  auto& pod = bench.pod(kB);
  bench.table.add(pod.port);
  bench.setMembers();
  const uint64_t pages = pod.guest.allocate(kPieces * kPage, kPage);
  void* const area = pod.guest.at(pages);
  REQUIRE(::mmap(area, kPieces * kPage, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area);
  std::vector<virtqueue::test::Element> pieces;
  for (size_t i = 0; i < kPieces; ++i) pieces.push_back({pages + i * kPage, 6, true});
  const uint64_t table = pod.guest.allocate(16 * kPieces);
  for (size_t i = 0; i < kPieces; ++i)
    pod.guest.put(
        table + 16 * i,
        virtqueue::Descriptor{
            pieces[i].address, 6,
            static_cast<uint16_t>(i + 1 < kPieces ? virtqueue::flag::kWrite | virtqueue::flag::kNext
                                                  : virtqueue::flag::kWrite),
            static_cast<uint16_t>(i + 1)});
  const virtqueue::test::Element buffer{table, 16 * kPieces};
  const Bytes bytes = frame(kBroadcast, macOf(kA), 6 * kPieces - kHeaderSize);
  size_t sent = 0;
  for (; pod.drops() == 0 && sent < 5000; ++sent) {
    REQUIRE(::madvise(area, kPieces * kPage, MADV_REMOVE) == 0);
    REQUIRE(pod.receives.add(std::span(&buffer, 1), virtqueue::flag::kIndirect));
    bench.send(kA, bytes);
    CHECK(bench.pod(kC).next() == bytes);
    while (pod.receives.take()) {
    }
  }
  CHECK(pod.drops(Drop::rxFull) == 1);
  CHECK(pod.port.counters[0].rxPackets.get() == sent - 1);
  CHECK(bench.forwarder.takeExcess() > 0);
  CHECK(bench.forwarder.takeExcess() == 0);
  bench.time.now += 10 * kHz;
  bench.send(kA, bytes);
  CHECK(pod.port.counters[0].rxPackets.get() == sent);
}

TEMPLATE_TEST_CASE("a fault in a ring is reported once, and what came before it passes", "",
                   SplitDriver, PackedDriver) {
  Bench<TestType> bench(3);
  bench.macs.addStatic(macOf(kB), 0, kB);
  const Bytes good = frame(macOf(kB), macOf(kA));
  SECTION("of what it sends") {
    bench.pod(kA).send(good);
    bench.pod(kA).sends.add({0x10, 100});  // outside its memory
    bench.serve(kA);
    CHECK(bench.pod(kB).next() == good);
    CHECK(bench.pod(kA).transmit->broken);
    const auto reports = bench.offences.take();
    REQUIRE(reports.size() == 1);
    CHECK(reports[0].port == kA);
    CHECK(reports[0].offence == Offence::kRing);
    bench.serve(kA);
    CHECK(bench.offences.take().empty());
  }
  SECTION("of what it receives in") {
    Pod<TestType> other(kC);
    bench.pods[2] = std::make_unique<Pod<TestType>>(kC);
    bench.table.add(bench.pod(kC).port);
    bench.macs.addStatic(macOf(kC), 0, kC);
    bench.pod(kC).post(1);
    bench.pod(kC).receives.add({0x10, 100, true});
    const Bytes toC = frame(macOf(kC), macOf(kA));
    bench.send(kA, toC);
    bench.send(kA, toC);
    bench.send(kA, toC);
    CHECK(bench.pod(kC).next() == toC);
    CHECK(bench.pod(kC).receive->broken);
    CHECK(bench.pod(kC).drops(Drop::rxFull) == 2);
    const auto reports = bench.offences.take();
    REQUIRE(reports.size() == 1);
    CHECK(reports[0].port == kC);
    // The sender is not to blame.
    bench.send(kA, good);
    CHECK(bench.pod(kB).next() == good);
  }
}

TEST_CASE("unfinished checksums pass to those who agreed on them, and are finished for others") {
  Bench<SplitDriver> bench(3);
  auto set = std::make_shared<VlanSet>();
  set->set(7);
  bench.pod(kA).view.vlan = bench.pod(kB).view.vlan = bench.pod(kC).view.vlan = 7;
  bench.pod(kA).transmit->offloads = bench.pod(kB).receive->offloads = Offloads::kChecksum;
  NetHeader header{.flags = 1, .checksumStart = 34, .checksumOffset = 6};
  Bytes bytes = frame(kBroadcast, macOf(kA), 100), finished = bytes;
  test::put16(finished, 40, ~test::slowSum(std::span(finished).subspan(34)) & 0xffff);
  const bool trunk = GENERATE(false, true);
  if (trunk) {
    bench.pod(kB).view.trunk = bench.pod(kC).view.trunk = set;
    bench.pod(kB).view.vlan = bench.pod(kC).view.vlan = 0;
  }
  bench.setMembers();
  for (int i = 0; i < 3; ++i) bench.send(kA, bytes, i == 1 ? header : NetHeader{});
  const auto toB = bench.pod(kB).received(), toC = bench.pod(kC).received();
  REQUIRE(toB.size() == 3);
  REQUIRE(toC.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const auto sent = [&](const Bytes& frame) { return trunk ? tagged(frame, 7) : frame; };
    CHECK(toB[i].frame == sent(bytes));
    CHECK(toC[i].frame == sent(i == 1 ? finished : bytes));
    CHECK(toB[i].header.flags == (i == 1 ? 1 : 0));
    CHECK(toB[i].header.checksumStart == (i != 1 ? 0 : trunk ? 38 : 34));
    CHECK(toC[i].header.flags == 0);
  }
  header.checksumStart = 99;
  bench.send(kA, bytes, header);
  CHECK(bench.pod(kA).drops(Drop::badOffload) == 1);
  // The header of a sender that agreed on no offloads is ignored.
  bench.pod(kA).transmit->offloads = Offloads::kNone;
  bench.send(kA, bytes, header);
  CHECK(bench.pod(kB).received().size() == 1);
}

TEST_CASE("the offsets of a tagged frame's header are those of the frame without the tag") {
  Bench<SplitDriver> bench(2);
  auto set = std::make_shared<VlanSet>();
  set->set(7);
  bench.pod(kA).view.trunk = set;
  bench.pod(kB).view.vlan = 7;
  bench.setMembers();
  bench.pod(kA).transmit->offloads = bench.pod(kB).receive->offloads = Offloads::kChecksum;
  bench.send(kA, frame(kBroadcast, macOf(kA), 100, 7),
             {.flags = 1, .checksumStart = 38, .checksumOffset = 6});
  const auto got = bench.pod(kB).received();
  REQUIRE(got.size() == 1);
  CHECK(got[0].header.checksumStart == 34);
  CHECK(got[0].frame == frame(kBroadcast, macOf(kA), 100));
}

namespace {

class FakeUplink : public Uplink {
 public:
  size_t receive(unsigned, std::span<UplinkFrame> frames) override {
    const size_t count = std::min(frames.size(), waiting.size());
    for (size_t i = 0; i < count; ++i)
      frames[i] = {waiting[i].data(), static_cast<uint32_t>(waiting[i].size()), checked};
    return count;
  }
  void release(unsigned) override { waiting.clear(); }
  Offloads offloads() const override { return able; }
  size_t send(unsigned, std::span<const Outgoing> frames, size_t& noMemory) override {
    size_t count = 0;
    for (const Outgoing& out : frames) {
      if (count == room) break;
      Bytes bytes(out.frame->length);
      virtqueue::copyFrame(*out.frame, bytes.data());
      sent.push_back(out.vlan ? tagged(bytes, out.vlan) : bytes);
      ++count;
    }
    if (count < frames.size()) noMemory = 1;
    return count;
  }
  int wakeFd(unsigned) const override { return -1; }
  void armWake(unsigned) override {}
  void disarmWake(unsigned) override {}

  std::vector<Bytes> waiting, sent;
  size_t room = 64;
  Offloads able = Offloads::kNone;
  bool checked = false;
};

}  // namespace

TEST_CASE("the uplink is a trunk for all VLANs") {
  FakeUplink uplink;
  Bench<SplitDriver> bench(3, &uplink);
  bench.pod(kB).view.vlan = 7;
  bench.setMembers();
  const size_t length = GENERATE(60u, 200u);
  const Bytes out = frame(macOf(99), macOf(kB), length), in = frame(macOf(kB), macOf(99), length);
  bench.send(kB, out);
  REQUIRE(uplink.sent.size() == 1);
  CHECK(uplink.sent[0] == tagged(out, 7));
  CHECK(bench.uplinkPort.counters[0].rxBytes.get() == length + 4);
  uplink.waiting = {tagged(in, 7), frame(kBroadcast, macOf(98), length), tagged(in, 8)};
  CHECK(bench.forwarder.serveUplink(bench.uplinkMemo, 64, bench.time) == 3);
  CHECK(bench.pod(kB).next() == in);
  CHECK(bench.pod(kB).next().empty());
  CHECK(bench.pod(kA).next() == frame(kBroadcast, macOf(98), length));
  CHECK(bench.uplinkPort.counters[0].txPackets.get() == 3);
  CHECK(bench.uplinkPort.counters[0].txBytes.get() == 3 * length + 8);
  // A frame to a station behind the uplink is sent there only.
  bench.send(kB, frame(macOf(99), macOf(kB), length));
  CHECK(uplink.sent.size() == 2);
  // An untagged VLAN stays so.
  bench.send(kA, frame(macOf(98), macOf(kA), length));
  REQUIRE(uplink.sent.size() == 3);
  CHECK(uplink.sent[2].size() == length);
  uplink.room = 1;
  for (int i = 0; i < 3; ++i) bench.pod(kA).send(frame(macOf(98), macOf(kA), length));
  bench.serve(kA);
  CHECK(bench.uplinkPort.counters[0].rxPackets.get() == 4);
  CHECK(bench.uplinkPort.counters[0].rxBytes.get() == 4 * length + 8);
  CHECK(bench.uplinkPort.counters[0].drops[static_cast<size_t>(Drop::noMemory)].get() == 1);
  CHECK(bench.uplinkPort.counters[0].drops[static_cast<size_t>(Drop::rxFull)].get() == 1);
}

TEST_CASE("frames that no uplink's device can cut are cut for it") {
  FakeUplink uplink;
  uplink.able = Offloads::kChecksum | Offloads::kTso4 | Offloads::kTso6 | Offloads::kEcn;
  Bench<SplitDriver> bench(2, &uplink);
  bench.pod(kA).transmit->offloads = uplink.able;
  const unsigned extensions = GENERATE(0u, 8u);
  const Packet packet = makePacket({.ipv6 = true, .ipOptions = extensions}, 1300);
  NetHeader header{.flags = 1, .gsoType = virtqueue::gso::kTcp6, .gsoSize = 700};
  header.checksumStart = static_cast<uint16_t>(packet.transport);
  header.checksumOffset = 16;
  bench.send(kA, packet.bytes, header);
  CHECK(uplink.sent.size() == (extensions > 0 ? 2 : 1));
  CHECK(bench.uplinkPort.counters[0].rxPackets.get() == uplink.sent.size());
}

TEST_CASE("that the uplink has verified a checksum is told to those who want to know") {
  FakeUplink uplink;
  uplink.checked = true;
  Bench<SplitDriver> bench(2, &uplink);
  bench.pod(kA).receive->offloads = Offloads::kChecksum;
  uplink.waiting = {frame(kBroadcast, macOf(99), 200)};
  bench.forwarder.serveUplink(bench.uplinkMemo, 64, bench.time);
  const auto toA = bench.pod(kA).received(), toB = bench.pod(kB).received();
  REQUIRE(toA.size() == 1);
  REQUIRE(toB.size() == 1);
  CHECK(toA[0].header.flags == 2);
  CHECK(toB[0].header.flags == 0);
}
