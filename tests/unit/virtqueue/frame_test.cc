// A packet in a driver's buffer: its head is a copy, taken once.
#include "deviceplugin/datapath/virtqueue/frame.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

struct Sender {
  Sender()
      : driver(guest, 16), ring(driver.connect(Direction::kTransmit)), at(guest.allocate(4096)) {
    guest.fill(at, 4096, 1);
  }

  const Buffer& send(const std::vector<Element>& elements) {
    driver.add(elements);
    REQUIRE(fetch(ring, list, 64, lease) == 1);
    return list[0];
  }
  std::vector<std::byte> packet(uint32_t length) { return guest.bytes(at + 12, length); }

  Guest guest;
  SplitDriver driver;
  SplitRing ring;
  uint64_t at;
  BufferList list;
  Lease lease;
};

std::vector<std::byte> copied(const Frame& frame) {
  std::vector<std::byte> bytes(frame.length);
  prefetchFrame(frame);
  copyFrame(frame, bytes.data());
  return bytes;
}

}  // namespace

TEST_CASE("A frame of any length, in one piece and in several") {
  const uint32_t length = GENERATE(1u, 13u, 31u, 32u, 47u, 60u, 63u, 64u, 65u, 100u, 1514u);
  Sender sender;
  std::vector<Element> elements;
  SECTION("one piece") {
    elements = {{sender.at, 12 + length}};
  }
  SECTION("the header apart") {
    elements = {{sender.at, 12}, {sender.at + 12, length}};
  }
  SECTION("a byte each, at first") {
    for (uint32_t i = 0; i < 13; ++i) elements.push_back({sender.at + i, 1});
    elements.push_back({sender.at + 13, length - 1});
  }
  Frame frame;
  REQUIRE(readFrame(sender.list, sender.send(elements), kHeaderSize, frame));
  CHECK(frame.length == length);
  CHECK(frame.headLength() == std::min(length, 64u));
  CHECK(copied(frame) == sender.packet(length));
}

TEST_CASE("Buffers without a frame") {
  Sender sender;
  Frame frame;
  CHECK_FALSE(readFrame(sender.list, sender.send({{sender.at, 0}}), kHeaderSize, frame));
  CHECK_FALSE(readFrame(sender.list, sender.send({{sender.at, 12}}), kHeaderSize, frame));
  CHECK_FALSE(
      readFrame(sender.list, sender.send({{sender.at, 6}, {sender.at, 6}}), kHeaderSize, frame));
}

TEST_CASE("The head stays what it was; the driver may change the rest") {
  Sender sender;
  const auto before = sender.packet(200);
  Frame frame;
  std::vector<Element> elements{{sender.at, 212}};
  SECTION("one piece") {}
  SECTION("several") {
    elements = {{sender.at, 50}, {sender.at + 50, 162}};
  }
  REQUIRE(readFrame(sender.list, sender.send(elements), kHeaderSize, frame));
  std::memset(sender.guest.at(sender.at + 12), 0xff, 200);
  const auto after = copied(frame);
  CHECK(std::equal(after.begin(), after.begin() + 64, before.begin()));
  CHECK(std::all_of(after.begin() + 64, after.end(),
                    [](std::byte b) { return b == std::byte{0xff}; }));
}

TEST_CASE("The header of a frame, in one piece and in several") {
  Sender sender;
  const NetHeader sent{.flags = 1,
                       .gsoType = 1,
                       .headerLength = 54,
                       .gsoSize = 1460,
                       .checksumStart = 34,
                       .checksumOffset = 16,
                       .buffers = 7};
  sender.guest.put(sender.at, sent);
  std::vector<Element> elements{{sender.at, 100}};
  SECTION("one piece") {}
  SECTION("several") {
    elements = {{sender.at, 3}, {sender.at + 3, 97}};
  }
  const NetHeader found = readHeader(sender.list, sender.send(elements), kHeaderSize);
  CHECK(std::memcmp(&found, &sent, sizeof sent) == 0);
  const NetHeader legacy = readHeader(sender.list, sender.list[0], kLegacyHeaderSize);
  CHECK(legacy.checksumOffset == 16);
  CHECK(legacy.buffers == 0);
}

TEST_CASE("A frame of our own") {
  std::vector<std::byte> bytes(GENERATE(1u, 64u, 1000u));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  CHECK(copied(frameOf(bytes.data(), static_cast<uint32_t>(bytes.size()))) == bytes);
}
