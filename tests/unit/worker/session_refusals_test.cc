// Violations by a front-end: each ends the session, names the request, and leaves no descriptor
// open.
#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

namespace {

void refused(Session& session, Message message, const std::string& text) {
  const std::string name = nameOf(message.request);
  const size_t before = openDescriptors() - message.descriptors.size();
  CHECK_THROWS_WITH(session.handle(std::move(message)),
                    Catch::StartsWith(name + ": ") && Catch::Contains(text));
  message.descriptors.clear();  // NOLINT(bugprone-use-after-move): refused ones stay in it
  CHECK(openDescriptors() == before);
}

struct Form {
  Request request;
  size_t length;
  size_t descriptors;
};

// Every request with a valid payload and descriptors (GET_CONFIG and SET_MEM_TABLE in their
// shortest form).
const std::vector<Form> kForms = {
    {Request::GetFeatures, 0, 0},
    {Request::SetFeatures, 8, 0},
    {Request::SetOwner, 0, 0},
    {Request::ResetOwner, 0, 0},
    {Request::SetMemTable, 40, 1},
    {Request::SetVringNum, 8, 0},
    {Request::SetVringAddr, 40, 0},
    {Request::SetVringBase, 8, 0},
    {Request::GetVringBase, 8, 0},
    {Request::SetVringKick, 8, 1},
    {Request::SetVringCall, 8, 1},
    {Request::SetVringErr, 8, 1},
    {Request::GetProtocolFeatures, 0, 0},
    {Request::SetProtocolFeatures, 8, 0},
    {Request::GetQueueNum, 0, 0},
    {Request::SetVringEnable, 8, 0},
    {Request::NetSetMtu, 8, 0},
    {Request::SetBackendReqFd, 0, 1},
    {Request::GetConfig, 12, 0},
    {Request::SetConfig, 12, 0},
    {Request::ResetDevice, 0, 0},
    {Request::SetStatus, 8, 0},
    {Request::GetStatus, 0, 0},
};

Message shaped(const Form& form, size_t length, size_t descriptors) {
  Message message = empty(form.request);
  message.payload.resize(length);
  if (form.request == Request::SetMemTable && length > 0) message.payload[0] = std::byte{1};
  for (size_t i = 0; i < descriptors; ++i) message.descriptors.push_back(eventFd());
  return message;
}

}  // namespace

TEST_CASE("every request: too short, too long, descriptors missing or too many") {
  Session session(offered());
  for (const Form& form : kForms) {
    INFO(nameOf(form.request));
    if (form.length > 0) {
      refused(session, shaped(form, form.length - 1, form.descriptors), "payload of");
      refused(session, shaped(form, 0, form.descriptors), "payload of 0 bytes");
    }
    refused(session, shaped(form, form.length + 1, form.descriptors), "payload of");
    refused(session, shaped(form, kMaxPayload, form.descriptors), "payload of");
    refused(session, shaped(form, form.length, form.descriptors + 1), "descriptors; expected");
    if (form.descriptors > 0)
      refused(session, shaped(form, form.length, 0), "came with 0 descriptors");
    refused(session, shaped(form, form.length, kMaxDescriptors), "came with 8 descriptors");
    Message reply = shaped(form, form.length, form.descriptors);
    reply.flags |= kReplyFlag;
    refused(session, std::move(reply), "marked as a reply");
  }
}

TEST_CASE("requests that are not offered") {
  const uint32_t number = GENERATE(0u, 6u, 7u, 19u, 22u, 31u, 36u, 41u, 0xffffffffu);
  Session session(offered());
  refused(session, empty(static_cast<Request>(number)), "not a request this back-end offers");
}

TEST_CASE("requests of a protocol feature that was not negotiated") {
  Session session(offered());
  ConfigHeader config{0, 0, 0};
  refused(session, empty(Request::GetQueueNum), "MQ, which was not negotiated");
  refused(session, empty(Request::GetStatus), "STATUS, which was not negotiated");
  refused(session, with(Request::SetStatus, uint64_t{1}), "STATUS, which was not negotiated");
  refused(session, with(Request::NetSetMtu, uint64_t{1500}), "NET_MTU, which was not negotiated");
  refused(session, with(Request::GetConfig, config), "CONFIG, which was not negotiated");
  refused(session, with(Request::SetConfig, config), "CONFIG, which was not negotiated");
  refused(session, empty(Request::ResetDevice), "RESET_DEVICE, which was not negotiated");
  Message channel = empty(Request::SetBackendReqFd);
  channel.descriptors.push_back(eventFd());
  refused(session, std::move(channel), "BACKEND_REQ, which was not negotiated");
}

TEST_CASE("features") {
  Session session(offered());
  refused(session, with(Request::SetFeatures, bit(26)), "features 0x4000000 are not offered");
  refused(session, with(Request::SetFeatures, feature::kPackedRing), "packed rings need VERSION_1");
  refused(session, with(Request::SetProtocolFeatures, bit(12)), "0x1000 were not offered");
}

TEST_CASE("what a running ring forbids") {
  Session session(offered());
  setUp(session);
  startRing(session, 0);
  refused(session, with(Request::SetFeatures, feature::kVersion1), "while rings run");
  refused(session, with(Request::SetProtocolFeatures, uint64_t{0}), "while rings run");
  refused(session, state(Request::SetVringNum, 0, 128), "ring 0 runs");
  refused(session, state(Request::SetVringBase, 0, 0), "ring 0 runs");
  refused(session, addresses(0), "ring 0 runs");
  refused(session, memoryTable(memoryFile(0x10000), 0x10000, 0x900000),
          "ring 0: the descriptor area (4096 bytes at 0x10000) is not within one memory region");
}

TEST_CASE("ring indexes, sizes and positions") {
  Session session(offered());
  setUp(session);
  refused(session, state(Request::SetVringNum, 2, 256), "ring 2 of a device with 1 queue pairs");
  refused(session, state(Request::SetVringBase, 0xffffffff, 0), "ring 4294967295 of a device");
  refused(session, state(Request::GetVringBase, 2, 0), "ring 2 of a device");
  refused(session, state(Request::SetVringEnable, 2, 1), "ring 2 of a device");
  refused(session, addresses(2), "ring 2 of a device");
  refused(session, with(Request::SetVringKick, uint64_t{2}, eventFd()), "ring 2 of a device");
  refused(session, with(Request::SetVringCall, uint64_t{255}, eventFd()), "ring 255 of a device");
  refused(session, with(Request::SetVringErr, uint64_t{2}, eventFd()), "ring 2 of a device");
  refused(session, with(Request::SetVringCall, uint64_t{0x200}, eventFd()), "unknown bits");
  refused(session, state(Request::SetVringNum, 0, 0), "with 0 entries; expected 1 to 256");
  refused(session, state(Request::SetVringNum, 0, 512), "with 512 entries; expected 1 to 256");
  refused(session, state(Request::SetVringBase, 0, 0x10000), "an index has 16 bits");
  refused(session, state(Request::SetVringEnable, 0, 2), "value 2; expected 0 or 1");
  session.handle(state(Request::SetVringNum, 0, 100));
  refused(session, with(Request::SetVringKick, uint64_t{0}, eventFd()),
          "a split ring of 100 entries; expected a power of two");
}

TEST_CASE("a packed ring starts within itself") {
  Session session(offered());
  setUp(session, feature::kVersion1 | feature::kPackedRing);
  session.handle(state(Request::SetVringBase, 0, 0x8000 | 256));
  refused(session, with(Request::SetVringKick, uint64_t{0}, eventFd()),
          "starts at entry 256 of 256");
}

TEST_CASE("ring addresses") {
  struct Case {
    VringAddresses addresses;
    const char* text;
  };
  const auto [at, text] = GENERATE(values<Case>({
      {{0, 0, 0x10008, 0x12000, 0x11000, 0}, "descriptor area at 0x10008 is not aligned to 16"},
      {{0, 0, 0x10000, 0x12002, 0x11000, 0}, "device area at 0x12002 is not aligned to 4"},
      {{0, 0, 0x10000, 0x12000, 0x11001, 0}, "driver area at 0x11001 is not aligned to 2"},
      {{0, 0, 0x1f010, 0x12000, 0x11000, 0},
       "descriptor area (4096 bytes at 0x1f010) is not within"},
      {{0, 0, 0x10000, 0x1fffc, 0x11000, 0}, "device area (2052 bytes at 0x1fffc) is not within"},
      {{0, 0, 0x10000, 0x12000, 0x1fffe, 0}, "driver area (516 bytes at 0x1fffe) is not within"},
      {{0, 0, 0, 0x12000, 0x11000, 0}, "descriptor area (4096 bytes at 0x0) is not within"},
      {{0, 0, 0xfffffffffffffff0, 0x12000, 0x11000, 0}, "is not within one memory region"},
  }));
  Session session(offered());
  setUp(session);
  session.handle(with(Request::SetVringAddr, at));
  refused(session, with(Request::SetVringKick, uint64_t{0}, eventFd()), text);
}

TEST_CASE("logging of dirty pages was not offered") {
  Session session(offered());
  setUp(session);
  refused(session, with(Request::SetVringAddr, VringAddresses{0, 1, 0x10000, 0x12000, 0x11000, 0}),
          "flags 0x1 were not offered");
}

TEST_CASE("out of order: a ring is started before it is set up") {
  Session session(offered());
  const auto kick = [] { return with(Request::SetVringKick, uint64_t{0}, eventFd()); };
  refused(session, kick(), "started before its size is set");
  session.handle(state(Request::SetVringNum, 0, 256));
  refused(session, kick(), "started before its addresses are set");
  session.handle(addresses(0));
  refused(session, kick(), "started before memory is shared");
  session.handle(memoryTable(memoryFile(0x10000), 0x10000));
  session.handle(kick());
  CHECK(session.device().rings[0].started);
}

TEST_CASE("what is no eventfd") {
  const Request request =
      GENERATE(Request::SetVringKick, Request::SetVringCall, Request::SetVringErr);
  Session session(offered());
  setUp(session);
  refused(session, with(request, uint64_t{0}, memoryFile(8, "anon_inode:[eventfd]")),
          "not an eventfd");
  refused(session, with(request, uint64_t{0}, UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))),
          "not an eventfd");
}

TEST_CASE("what is no Unix stream socket") {
  Session session(offered());
  session.handle(with(Request::SetProtocolFeatures, protocol_feature::kBackendRequests));
  Message channel = empty(Request::SetBackendReqFd);
  SECTION("an eventfd") {
    channel.descriptors.push_back(eventFd());
  }
  SECTION("a datagram socket") {
    channel.descriptors.emplace_back(::socket(AF_UNIX, SOCK_DGRAM, 0));
  }
  SECTION("a TCP socket") {
    channel.descriptors.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
  }
  SECTION("a file") {
    channel.descriptors.push_back(memoryFile(0x1000));
  }
  refused(session, std::move(channel), "not a Unix stream socket");
}

TEST_CASE("memory tables of no and of too many regions") {
  Session session(offered());
  struct {
    uint32_t count, padding;
  } table{GENERATE(0u, 9u, 0xffffffffu), 0};
  refused(session, with(Request::SetMemTable, table), "memory regions; expected 1 to 8");
}

TEST_CASE("more configuration than there can be") {
  Session session(offered());
  session.handle(with(Request::SetProtocolFeatures, protocol_feature::kConfig));
  refused(session, with(Request::GetConfig, ConfigHeader{0, 257, 0}), "at most 256 exist");
  refused(session, with(Request::GetConfig, ConfigHeader{0, 0xffffffff, 0}), "at most 256 exist");
}

TEST_CASE("what was refused is acknowledged as such, if it is acknowledged at all") {
  Session session(offered());
  session.handle(with(Request::SetProtocolFeatures, protocol_feature::kReplyAck));
  const auto refused = [&](Message message) {
    CHECK_THROWS_AS(session.handle(std::move(message)), ProtocolError);
    return session.takeRefusal();
  };
  const auto reply =
      refused(with(Request::SetFeatures, uint64_t{1} << 63, kVersion | kNeedReplyFlag));
  REQUIRE(reply);
  uint64_t value = 0;
  REQUIRE(reply->size() == sizeof(MessageHeader) + sizeof value);
  std::memcpy(&value, reply->data() + sizeof(MessageHeader), sizeof value);
  CHECK(value == 1);
  CHECK_FALSE(refused(with(Request::SetFeatures, uint64_t{1} << 63)));
  CHECK_FALSE(refused(empty(Request::GetQueueNum, kVersion | kNeedReplyFlag | kReplyFlag)));

  session.handle(empty(Request::GetFeatures));
  CHECK_FALSE(session.takeRefusal());
}
