// Packets into receive queues, as their driver sees them (virtio 1.2, 5.1.6.3 and 5.1.6.4).
#include "deviceplugin/datapath/virtqueue/receive.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/lease_order.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

constexpr std::byte kUntouched{0xee};

std::vector<std::byte> packet(uint32_t length, uint8_t seed) {
  std::vector<std::byte> bytes(length);
  for (uint32_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(seed + i * 3);
  return bytes;
}

// A driver that receives, and the device's side.
template <typename Driver>
struct Receiver {
  explicit Receiver(NetFormat format, uint32_t size = 16, uint16_t start = 0)
      : format(format), driver(guest, size, false, start), ring(make()) {}

  typename Driver::Device make() {
    RingSetup setup = driver.setup(Direction::kReceive);
    setup.shortest = static_cast<uint16_t>(format.headerSize);
    return typename Driver::Device(setup, guest.map());
  }

  // A buffer of pieces of these lengths.
  void post(const std::vector<uint32_t>& lengths) {
    std::vector<Element> elements;
    for (const uint32_t length : lengths) {
      elements.push_back({guest.allocate(length + 1, 1), length, true});
      std::memset(guest.at(elements.back().address), static_cast<int>(kUntouched), length + 1);
    }
    REQUIRE(driver.add(elements));
    posted[driver.lastId()] = elements;
  }

  std::vector<Place> places;
  // As a switch does it, with the packets in our memory.
  bool deliver(const std::vector<std::vector<std::byte>>& packets, const NetHeader& header = {}) {
    std::vector<uint32_t> lengths;
    for (const auto& bytes : packets) lengths.push_back(static_cast<uint32_t>(bytes.size()));
    places.assign(packets.size(), {});
    bool notify = false;
    for (size_t done = 0; done < packets.size();) {
      const std::span rest(places.begin() + static_cast<long>(done), places.end());
      const size_t handled =
          reserve(ring, format, std::span(lengths).subspan(done), rest, *list, lease);
      REQUIRE(handled > 0);
      for (size_t i = 0; i < handled; ++i) {
        if (rest[i].room != Place::Room::kFound) continue;
        prefetchPlace(*list, rest[i], lengths[done + i]);
        const auto& bytes = packets[done + i];
        write(*list, rest[i], format, header, frameOf(bytes.data(), lengths[done + i]));
      }
      ring.fill(lease, *list);
      notify |= ring.publish(lease);
      done += handled;
    }
    return notify;
  }

  // The content of the driver's next used buffer; nothing beyond the used length is written.
  std::optional<std::vector<std::byte>> takeBuffer() {
    const auto used = driver.take();
    if (!used) return std::nullopt;
    std::vector<std::byte> bytes;
    uint32_t left = used->written;
    for (const Element& element : posted.at(used->id)) {
      const uint32_t part = std::min(left, element.length);
      const auto piece = guest.bytes(element.address, part);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      for (uint32_t i = part; i <= element.length; ++i)
        CHECK(*guest.at(element.address + i) == kUntouched);
      left -= part;
    }
    CHECK(left == 0);
    lastPosted = std::accumulate(posted[used->id].begin(), posted[used->id].end(), 0u,
                                 [](uint32_t sum, const Element& e) { return sum + e.length; });
    posted.erase(used->id);
    return bytes;
  }

  // A packet, and its header; all its buffers but the last are full (5.1.6.4.1).
  std::optional<std::vector<std::byte>> takePacket(NetHeader* header = nullptr) {
    auto bytes = takeBuffer();
    if (!bytes) return std::nullopt;
    NetHeader found{};
    REQUIRE(bytes->size() >= format.headerSize);
    std::memcpy(&found, bytes->data(), format.headerSize);
    if (header) *header = found;
    const uint16_t buffers = format.headerSize == kHeaderSize ? found.buffers : 1;
    buffersOfLast = buffers;
    for (uint16_t i = 1; i < buffers; ++i) {
      CHECK((i > 1 || bytes->size() == lastPosted));
      const auto more = takeBuffer();
      REQUIRE(more.has_value());
      bytes->insert(bytes->end(), more->begin(), more->end());
    }
    bytes->erase(bytes->begin(), bytes->begin() + format.headerSize);
    return bytes;
  }

  const NetFormat format;
  Guest guest;
  Driver driver;
  std::map<uint16_t, std::vector<Element>> posted;
  typename Driver::Device ring;
  std::unique_ptr<BufferList> list = std::make_unique<BufferList>();
  Lease lease;
  uint16_t buffersOfLast = 0;
  uint32_t lastPosted = 0;
};

const NetFormat kMergeable{.headerSize = kHeaderSize, .mergeable = true};

}  // namespace

TEMPLATE_TEST_CASE("Packets arrive as they were sent", "", SplitDriver, PackedDriver) {
  const bool mergeable = GENERATE(false, true);
  Receiver<TestType> receiver({kHeaderSize, mergeable}, 16, 11);
  for (uint32_t round = 0; round < 20; ++round) {
    std::vector<std::vector<std::byte>> packets;
    // Lengths around those at which copying changes.
    for (const uint32_t length : {1u, 14u, 31u, 32u, 33u, 60u, 63u, 64u, 65u, 128u, 1514u, 9018u})
      packets.push_back(packet(length, static_cast<uint8_t>(round + length)));
    for (size_t i = 0; i < packets.size(); ++i) receiver.post({9030});
    receiver.deliver(packets);
    for (const auto& bytes : packets) {
      NetHeader header;
      CHECK(receiver.takePacket(&header) == bytes);
      CHECK(header.buffers == 1);
      CHECK(header.flags == 0);
    }
    CHECK_FALSE(receiver.takePacket().has_value());
  }
}

TEMPLATE_TEST_CASE("The header is what the device decided", "", SplitDriver, PackedDriver) {
  Receiver<TestType> receiver({});
  NetHeader sent{.flags = 1,
                 .gsoType = 4,
                 .headerLength = 66,
                 .gsoSize = 1448,
                 .checksumStart = 34,
                 .checksumOffset = 16};
  for (int i = 0; i < 2; ++i) {
    receiver.post({2048});
    receiver.post({12, 2048});
  }
  receiver.deliver({packet(100, 1), packet(100, 2)}, sent);
  receiver.deliver({packet(100, 3), packet(100, 4)});
  for (int i = 0; i < 4; ++i) {
    NetHeader header;
    REQUIRE(receiver.takePacket(&header).has_value());
    sent.buffers = 1;
    const NetHeader expected = i < 2 ? sent : NetHeader{.buffers = 1};
    CHECK(std::memcmp(&header, &expected, sizeof header) == 0);
  }
}

TEMPLATE_TEST_CASE("A buffer that is used again has no header of an earlier packet", "",
                   SplitDriver, PackedDriver) {
  Receiver<TestType> receiver({});
  const uint64_t at = receiver.guest.allocate(200);
  const NetHeader headers[] = {
      {.gsoSize = 1448}, {.gsoSize = 1449}, {.gsoSize = 1449}, {}, {.checksumOffset = 16}, {}};
  for (NetHeader header : headers) {
    receiver.driver.add({at, 200, true});
    receiver.deliver({packet(60, 1)}, header);
    REQUIRE(receiver.driver.take().has_value());
    header.buffers = 1;
    const auto found = receiver.guest.template get<NetHeader>(at);
    CHECK(std::memcmp(&found, &header, sizeof header) == 0);
  }
}

TEMPLATE_TEST_CASE("Legacy drivers have a header of 10 bytes (5.1.6.1)", "", SplitDriver,
                   PackedDriver) {
  Receiver<TestType> receiver({kLegacyHeaderSize, false});
  receiver.post({110});
  receiver.post({10, 100});
  receiver.deliver({packet(100, 5), packet(100, 6)});
  CHECK(receiver.takePacket() == packet(100, 5));
  CHECK(receiver.takePacket() == packet(100, 6));
}

TEMPLATE_TEST_CASE("A packet may be spread over the pieces of one buffer", "", SplitDriver,
                   PackedDriver) {
  Receiver<TestType> receiver({});
  receiver.post({12, 1600});
  receiver.post({5, 20, 100, 2000});
  receiver.post({512, 512, 512});
  receiver.deliver({packet(1500, 1), packet(1500, 2), packet(1500, 3)});
  CHECK(receiver.takePacket() == packet(1500, 1));
  CHECK(receiver.takePacket() == packet(1500, 2));
  CHECK(receiver.takePacket() == packet(1500, 3));
}

TEMPLATE_TEST_CASE("Mergeable buffers", "", SplitDriver, PackedDriver) {
  Receiver<TestType> receiver(kMergeable, 64, 50);
  SECTION("as many as it takes, in bursts with others") {
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 50; ++i) receiver.post({200});
      receiver.deliver(
          {packet(188, 1), packet(189, 2), packet(1500, 3), packet(60, 4), packet(5000, 5)});
      const uint16_t buffers[] = {1, 2, 8, 1, 26};
      for (uint8_t i = 0; i < 5; ++i) {
        const uint32_t lengths[] = {188, 189, 1500, 60, 5000};
        CHECK(receiver.takePacket() == packet(lengths[i], static_cast<uint8_t>(i + 1)));
        CHECK(receiver.buffersOfLast == buffers[i]);
      }
      CHECK_FALSE(receiver.takePacket().has_value());
      receiver.deliver({packet(12 * 200 - 12, 9)});  // the rest, to the last byte
      CHECK(receiver.takePacket() == packet(12 * 200 - 12, 9));
    }
  }
  SECTION("of several pieces, and of different lengths") {
    receiver.post({6, 6});
    receiver.post({1, 70});
    receiver.post({3000});
    receiver.post({12, 500});
    receiver.deliver({packet(1000, 1), packet(500, 2)});
    CHECK(receiver.takePacket() == packet(1000, 1));
    CHECK(receiver.buffersOfLast == 3);
    CHECK(receiver.takePacket() == packet(500, 2));
  }
  SECTION("64 KiB") {
    for (int i = 0; i < 44; ++i) receiver.post({1526});
    receiver.deliver({packet(65549, 1)});
    CHECK(receiver.takePacket() == packet(65549, 1));
    CHECK(receiver.buffersOfLast == 43);
  }
}

TEMPLATE_TEST_CASE("Packets without room are passed over", "", SplitDriver, PackedDriver) {
  SECTION("no buffers") {
    Receiver<TestType> receiver({});
    CHECK_FALSE(receiver.deliver({packet(60, 1), packet(60, 2)}));
    CHECK(receiver.places[0].room == Place::Room::kFull);
    CHECK(receiver.places[1].room == Place::Room::kFull);
  }
  SECTION("too few") {
    Receiver<TestType> receiver({});
    receiver.post({2000});
    receiver.deliver({packet(60, 1), packet(60, 2)});
    CHECK(receiver.places[1].room == Place::Room::kFull);
    CHECK(receiver.takePacket() == packet(60, 1));
  }
  SECTION("too short ones stay for shorter packets") {
    Receiver<TestType> receiver({});
    receiver.post({100});
    receiver.post({2000});
    receiver.deliver({packet(89, 1), packet(88, 2), packet(1988, 3), packet(1, 4)});
    CHECK(receiver.places[0].room == Place::Room::kTooShort);
    CHECK(receiver.places[3].room == Place::Room::kFull);
    CHECK(receiver.takePacket() == packet(88, 2));
    CHECK(receiver.takePacket() == packet(1988, 3));
  }
  SECTION("too few to merge stay for shorter packets") {
    Receiver<TestType> receiver(kMergeable);
    for (int i = 0; i < 3; ++i) receiver.post({100});
    receiver.deliver({packet(289, 1), packet(188, 2), packet(100, 3), packet(88, 4)});
    CHECK(receiver.places[0].room == Place::Room::kFull);
    CHECK(receiver.places[2].room == Place::Room::kFull);
    CHECK(receiver.takePacket() == packet(188, 2));
    CHECK(receiver.takePacket() == packet(88, 4));
  }
  SECTION("more buffers than one packet may have") {
    Receiver<TestType> receiver(kMergeable, 512);
    for (int i = 0; i < 300; ++i) receiver.post({12});
    receiver.deliver({packet(12 * 256, 1), packet(12 * 255, 2)});
    CHECK(receiver.places[0].room == Place::Room::kTooShort);
    CHECK(receiver.takePacket() == packet(12 * 255, 2));
  }
}

TEMPLATE_TEST_CASE("A burst that needs more buffers than a list holds is done in parts", "",
                   SplitDriver, PackedDriver) {
  Receiver<TestType> receiver(kMergeable, 2048);
  std::vector<std::vector<std::byte>> packets;
  for (uint8_t i = 0; i < 64; ++i) packets.push_back(packet(9000, i));
  SECTION("of buffers") {
    for (int i = 0; i < 640; ++i) receiver.post({1000});
  }
  SECTION("of segments") {
    for (int i = 0; i < 64; ++i) receiver.post(std::vector<uint32_t>(20, 500));
  }
  receiver.deliver(packets);
  for (const auto& bytes : packets) REQUIRE(receiver.takePacket() == bytes);
}

TEMPLATE_TEST_CASE("Packets have no room while too many leases are open", "", SplitDriver,
                   PackedDriver) {
  Receiver<TestType> receiver({}, 128);
  for (int i = 0; i < 100; ++i) receiver.post({100});
  std::vector<std::unique_ptr<BufferList>> lists;
  std::vector<Lease> leases;
  const uint32_t length = 60;
  Place place;
  for (size_t i = 0; i < LeaseOrder::kMaxLeases; ++i) {
    lists.push_back(std::make_unique<BufferList>());
    leases.emplace_back();
    REQUIRE(reserve(receiver.ring, {}, {&length, 1}, {&place, 1}, *lists[i], leases[i]) == 1);
    REQUIRE(place.room == Place::Room::kFound);
    write(*lists[i], place, {}, {}, frameOf(packet(length, 1).data(), length));
  }
  receiver.deliver({packet(60, 2)});
  CHECK(receiver.places[0].room == Place::Room::kFull);
  for (size_t i = 0; i < leases.size(); ++i) giveBack(receiver.ring, *lists[i], leases[i]);
  receiver.deliver({packet(60, 2)});
  for (size_t i = 0; i < leases.size(); ++i) REQUIRE(receiver.takePacket() == packet(60, 1));
  CHECK(receiver.takePacket() == packet(60, 2));
}

TEMPLATE_TEST_CASE("A fault among the buffers ends it after those before", "", SplitDriver,
                   PackedDriver) {
  Receiver<TestType> receiver(kMergeable);
  receiver.post({100});
  receiver.driver.add({0xdead0000, 100, true});
  receiver.deliver({packet(60, 1), packet(60, 2)});
  CHECK(receiver.takePacket() == packet(60, 1));
  CHECK(receiver.places[1].room == Place::Room::kFull);
  CHECK(receiver.ring.fault().kind == FaultKind::kOutside);
}

TEMPLATE_TEST_CASE("From one driver's chains into another's", "", SplitDriver, PackedDriver) {
  Guest sender;
  TestType driver(sender, 16);
  auto ring = driver.connect(Direction::kTransmit);
  const auto bytes = packet(3000, 7);
  const uint64_t at = sender.allocate(3012);
  std::memcpy(sender.at(at + 12), bytes.data(), bytes.size());
  std::vector<Element> chain;
  SECTION("in one piece") {
    chain = {{at, 3012}};
  }
  SECTION("the header apart") {
    chain = {{at, 12}, {at + 12, 3000}};
  }
  SECTION("in odd pieces") {
    chain = {{at, 7}, {at + 7, 10}, {at + 17, 0}, {at + 17, 40}, {at + 57, 2000}, {at + 2057, 955}};
  }
  driver.add(chain);
  driver.addIndirect(chain);
  BufferList burst;
  Lease lease;
  REQUIRE(fetch(ring, burst, 64, lease) == 2);

  Receiver<TestType> receiver(kMergeable, 32);
  for (int i = 0; i < 10; ++i) receiver.post({100, 600});
  for (size_t i = 0; i < 2; ++i) {
    Frame frame;
    REQUIRE(readFrame(burst, burst[i], kHeaderSize, frame));
    const uint32_t length = frame.length;
    Place place;
    REQUIRE(reserve(receiver.ring, receiver.format, {&length, 1}, {&place, 1}, *receiver.list,
                    receiver.lease) == 1);
    write(*receiver.list, place, receiver.format, {}, frame);
    receiver.ring.fill(receiver.lease, *receiver.list);
    receiver.ring.publish(receiver.lease);
    CHECK(receiver.takePacket() == bytes);
  }
  giveBack(ring, burst, lease);
  CHECK(driver.take()->written == 0);
}
