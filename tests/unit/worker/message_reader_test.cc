// Framing: complete messages, in pieces, with descriptors, and invalid headers.
#include "deviceplugin/datapath/vhost_user/message_reader.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

namespace {

std::vector<std::byte> header(uint32_t request, uint32_t flags, uint32_t size) {
  const MessageHeader header{request, flags, size};
  return bytesOf(&header, sizeof header);
}

std::vector<UniqueFd> some(size_t count) {
  std::vector<UniqueFd> descriptors;
  for (size_t i = 0; i < count; ++i) descriptors.push_back(eventFd());
  return descriptors;
}

}  // namespace

TEST_CASE("a message without payload is complete with its header") {
  MessageReader reader;
  CHECK(reader.missing() == 12);
  const auto message = reader.add(header(1, kVersion, 0), {});
  REQUIRE(message);
  CHECK(message->request == Request::GetFeatures);
  CHECK(message->payload.empty());
  CHECK(reader.missing() == 12);
}

TEST_CASE("a message arrives byte by byte, its descriptors on the way") {
  MessageReader reader;
  const uint64_t payload = 0x1122334455667788;
  const auto bytes = encode(Request::SetVringKick, kVersion, &payload, sizeof payload);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto message = reader.add({&bytes[i], 1}, some(i == 0 || i == 15 ? 1 : 0));
    if (i + 1 < bytes.size()) {
      CHECK_FALSE(message);
    } else {
      REQUIRE(message);
      CHECK(message->as<uint64_t>() == payload);
      CHECK(message->descriptors.size() == 2);
    }
  }
}

TEST_CASE("two messages in a row don't share descriptors") {
  MessageReader reader;
  REQUIRE(reader.add(header(1, kVersion, 0), some(1))->descriptors.size() == 1);
  REQUIRE(reader.add(header(1, kVersion, 0), {})->descriptors.empty());
}

TEST_CASE("headers that cannot be right") {
  const auto [request, flags, size, text] =
      GENERATE(table<uint32_t, uint32_t, uint32_t, const char*>({
          {5, kVersion, kMaxPayload + 1, "SET_MEM_TABLE: announces a payload of 269 bytes"},
          {5, kVersion, 0xffffffff, "announces a payload of 4294967295 bytes"},
          {1, 0, 0, "GET_FEATURES: version 0"},
          {77, 2, 0, "request 77: version 2"},
      }));
  MessageReader reader;
  CHECK_THROWS_WITH(reader.add(header(request, flags, size), {}), Catch::Contains(text));
}

TEST_CASE("more descriptors than any message has, at once or little by little") {
  const size_t before = openDescriptors();
  {
    MessageReader reader;
    CHECK_THROWS_WITH(reader.add(header(5, kVersion, 8), some(9)),
                      Catch::Contains("more than 8 descriptors"));
  }
  {
    MessageReader reader;
    const auto bytes = header(5, kVersion, 8);
    CHECK_FALSE(reader.add({bytes.data(), 4}, some(8)));
    CHECK_THROWS_AS(reader.add({bytes.data() + 4, 4}, some(1)), ProtocolError);
  }
  CHECK(openDescriptors() == before);
}
