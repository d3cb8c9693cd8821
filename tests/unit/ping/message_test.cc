#include "deviceplugin/ping/message.h"

#include <catch2/catch.hpp>

#include <array>
#include <cstddef>
#include <span>

#include "common/mac_address.h"
#include "tests/unit/mac_literal.h"

namespace vdpa::ping {
namespace {

using Frame = std::array<std::byte, kShortestFrame>;

Frame frameOf(const Message& message) {
  Frame frame{};
  writeMessage(frame.data(), "02:00:00:00:00:01"_mac, "02:00:00:00:00:02"_mac, message);
  return frame;
}

TEST_CASE("a message is read as it was written") {
  const Frame frame = frameOf({Kind::kCountReply, 0x1122334455667788, 7, 9});
  CHECK(frame[12] == std::byte{0x88});  // the EtherType, in network byte order
  CHECK(frame[13] == std::byte{0xb5});
  const auto found = readMessage(frame);
  REQUIRE(found);
  CHECK(found->to == "02:00:00:00:00:01"_mac);
  CHECK(found->from == "02:00:00:00:00:02"_mac);
  CHECK(found->message.kind == Kind::kCountReply);
  CHECK(found->message.run == 0x1122334455667788);
  CHECK(found->message.number == 7);
  CHECK(found->message.time == 9);
}

TEST_CASE("frames of other programs are no messages") {
  const Frame good = frameOf({Kind::kData, 1, 2, 3});
  REQUIRE(readMessage(good));
  CHECK_FALSE(readMessage(std::span(good).first(40)));  // cut short
  for (const size_t place : {12, 13, 14, 17, 18}) {     // EtherType, magic number, version
    Frame other = good;
    other[place] ^= std::byte{1};
    CHECK_FALSE(readMessage(other));
  }
}

}  // namespace
}  // namespace vdpa::ping
