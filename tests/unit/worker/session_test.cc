// The answers to a front-end that follows the protocol.
#include "deviceplugin/datapath/vhost_user/session.h"

#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

TEST_CASE("what is offered can be asked for") {
  Session session(offered(2));
  session.handle(empty(Request::GetFeatures));
  CHECK(replyTo<uint64_t>(session) == offered().features);
  session.handle(empty(Request::GetProtocolFeatures));
  CHECK(replyTo<uint64_t>(session) == offered().protocolFeatures);
  session.handle(with(Request::SetProtocolFeatures, offered().protocolFeatures));
  CHECK_FALSE(session.takeReply());
  session.handle(empty(Request::GetQueueNum));
  CHECK(replyTo<uint64_t>(session) == 2);
}

TEST_CASE("a reply has the request's number, the version and the reply flag") {
  Session session(offered());
  session.handle(empty(Request::GetFeatures));
  const auto reply = session.takeReply();
  REQUIRE(reply);
  MessageHeader header;
  std::memcpy(&header, reply->data(), sizeof header);
  CHECK(header.request == 1);
  CHECK(header.flags == (kVersion | kReplyFlag));
  CHECK(header.size == 8);
  CHECK_FALSE(session.takeReply());
}

TEST_CASE("acknowledgements are sent when asked for and negotiated") {
  Session session(offered());
  const auto ask = [&] {
    session.handle(with(Request::SetFeatures, feature::kVersion1, kVersion | kNeedReplyFlag));
  };
  ask();
  CHECK_FALSE(session.takeReply());
  session.handle(with(Request::SetProtocolFeatures, protocol_feature::kReplyAck));
  ask();
  CHECK(replyTo<uint64_t>(session) == 0);
  session.handle(empty(Request::GetFeatures, kVersion | kNeedReplyFlag));
  CHECK(replyTo<uint64_t>(session) == offered().features);  // an answer is acknowledgement enough
  CHECK_FALSE(session.takeReply());
}

TEST_CASE("a ring runs from its kick to GET_VRING_BASE") {
  Session session(offered());
  setUp(session);
  const VhostDevice& device = session.device();
  CHECK_FALSE(device.runs(device.rings[0]));
  startRing(session, 0);
  CHECK(device.runs(device.rings[0]));
  CHECK(device.enabled(device.rings[0]));
  CHECK(device.rings[0].kick);
  CHECK(device.rings[0].call);
  CHECK_FALSE(device.runs(device.rings[1]));

  session.handle(state(Request::GetVringBase, 0, 0));
  CHECK_FALSE(device.runs(device.rings[0]));
  session.device().rings[0].base = 77;  // as the engine reports
  const auto answer = replyTo<VringState>(session);
  CHECK(answer.index == 0);
  CHECK(answer.value == 77);

  startRing(session, 0);
  CHECK(device.runs(device.rings[0]));
  CHECK(device.rings[0].base == 77);
}

TEST_CASE("a front-end that speaks of status starts its rings with DRIVER_OK") {
  Session session(offered());
  setUp(session, feature::kVersion1, protocol_feature::kStatus);
  startRing(session, 0);
  const VhostDevice& device = session.device();
  CHECK_FALSE(device.runs(device.rings[0]));
  session.handle(with(Request::SetStatus, uint64_t{0xf}));
  CHECK(device.runs(device.rings[0]));
  session.handle(empty(Request::GetStatus));
  CHECK(replyTo<uint64_t>(session) == 0xf);
  session.handle(with(Request::SetStatus, uint64_t{0}));
  CHECK_FALSE(device.runs(device.rings[0]));
  CHECK_FALSE(device.rings[0].started);
}

TEST_CASE("without PROTOCOL_FEATURES rings are enabled from the start") {
  Session session(offered());
  session.handle(with(Request::SetFeatures, feature::kVersion1));
  CHECK(session.device().enabled(session.device().rings[0]));
}

TEST_CASE("a ring without eventfds") {
  Session session(offered());
  setUp(session);
  session.handle(with(Request::SetVringCall, kVringNoDescriptor | 1));
  session.handle(with(Request::SetVringErr, uint64_t{1}, eventFd()));
  session.handle(with(Request::SetVringKick, kVringNoDescriptor | 1));
  const Vring& ring = session.device().rings[1];
  CHECK(ring.started);
  CHECK_FALSE(ring.call);
  CHECK_FALSE(ring.kick);
  CHECK(ring.error);
}

TEST_CASE("an eventfd that the pod made a blocking one keeps nobody waiting") {
  Session session(offered());
  setUp(session);
  session.handle(with(Request::SetVringCall, uint64_t{0}, eventFd()));
  CHECK(::fcntl(session.device().rings[0].call->get(), F_GETFL) & O_NONBLOCK);
}

TEST_CASE("packed rings need no power of two") {
  Session session(offered());
  setUp(session, feature::kVersion1 | feature::kPackedRing);
  session.handle(state(Request::SetVringNum, 0, 100));
  startRing(session, 0);
  CHECK(session.device().rings[0].started);
}

TEST_CASE("a second memory table replaces the first, the same one again changes nothing") {
  Session session(offered());
  setUp(session);
  startRing(session, 0);
  const auto first = session.device().memory;
  session.handle(memoryTable(UniqueFd(::dup(first->regions()[0].file->get())), 0x10000));
  CHECK(session.device().memory == first);
  session.handle(memoryTable(memoryFile(0x20000), 0x20000));
  CHECK(session.device().memory != first);
  CHECK(session.device().rings[0].started);
}

TEST_CASE("RESET_OWNER and RESET_DEVICE stop and disable every ring") {
  const Request request = GENERATE(Request::ResetOwner, Request::ResetDevice);
  Session session(offered());
  setUp(session, feature::kVersion1, protocol_feature::kResetDevice);
  startRing(session, 0);
  session.handle(empty(request));
  CHECK_FALSE(session.device().rings[0].started);
  CHECK_FALSE(session.device().rings[0].enabled);
}

TEST_CASE("configuration space") {
  Session session(offered(2));
  session.handle(
      with(Request::SetProtocolFeatures, protocol_feature::kConfig | protocol_feature::kReplyAck));
  struct {
    ConfigHeader header;
    uint8_t bytes[12];
  } whole{{0, 12, 0}, {}};
  session.handle(with(Request::GetConfig, whole));
  const auto reply = replyTo<decltype(whole)>(session);
  CHECK(reply.header.size == 12);
  const uint8_t expected[12] = {2, 0, 0, 0, 0, 7, 1, 0, 2, 0, 0x78, 0x05};  // MTU 1400
  CHECK(std::memcmp(reply.bytes, expected, sizeof expected) == 0);

  SECTION("zeros follow it, in answers as long as was asked for") {
    struct {
      ConfigHeader header;
      uint8_t bytes[256];
    } longest{{0, 256, 0}, {}};
    std::memset(longest.bytes, 0xff, sizeof longest.bytes);
    session.handle(with(Request::GetConfig, longest));
    const auto answer = replyTo<decltype(longest)>(session);
    CHECK(std::memcmp(answer.bytes, expected, sizeof expected) == 0);
    CHECK(
        std::all_of(answer.bytes + 12, answer.bytes + 256, [](uint8_t byte) { return byte == 0; }));
    whole.header.offset = 244;
    session.handle(with(Request::GetConfig, whole));
    CHECK(replyTo<decltype(whole)>(session).header.offset == 244);
  }
  SECTION("beyond any space the answer is empty") {
    whole.header.offset = GENERATE(245u, 257u, 0xffffffffu);
    session.handle(with(Request::GetConfig, whole));
    CHECK(session.takeReply()->size() == sizeof(MessageHeader));
  }
  SECTION("the driver cannot change it") {
    session.handle(with(Request::SetConfig, whole, kVersion | kNeedReplyFlag));
    CHECK(replyTo<uint64_t>(session) == 1);
  }
}

TEST_CASE(
    "the link's status changes in the configuration space, and is reported if that is wanted") {
  Session session(offered());
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  const UniqueFd front(ends[0]);
  Message channel = empty(Request::SetBackendReqFd);
  channel.descriptors.emplace_back(ends[1]);
  struct {
    ConfigHeader header;
    uint16_t status, queuePairs;
  } status{{6, 4, 0}, 0, 0};
  const auto linkStatus = [&] {
    session.handle(with(Request::GetConfig, status));
    return replyTo<decltype(status)>(session).status;
  };
  MessageHeader report;
  const auto reported = [&] { return ::recv(front.get(), &report, sizeof report, 0) > 0; };
  const bool config = GENERATE(true, false);
  session.handle(with(Request::SetProtocolFeatures, protocol_feature::kBackendRequests |
                                                        (config ? protocol_feature::kConfig : 0)));
  session.handle(std::move(channel));

  session.setLink(true);
  CHECK_FALSE(reported());
  session.setLink(false);
  REQUIRE(reported() == config);
  if (!config) return;
  CHECK(report.request == 2);
  CHECK(report.flags == kVersion);
  CHECK(report.size == 0);
  CHECK(linkStatus() == 0);
  session.setLink(true);
  CHECK(reported());
  CHECK_FALSE(reported());
  CHECK(linkStatus() == 1);
}

TEST_CASE("a front-end that reads no reports keeps nobody waiting") {
  Session session(offered());
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const UniqueFd front(ends[0]);
  Message channel = empty(Request::SetBackendReqFd);
  channel.descriptors.emplace_back(ends[1]);
  session.handle(with(Request::SetProtocolFeatures,
                      protocol_feature::kBackendRequests | protocol_feature::kConfig));
  session.handle(std::move(channel));
  for (int i = 0; i < 10000; ++i) session.setLink(i % 2 == 0);
  SUCCEED("it was full long before");
}

TEST_CASE("the driver's MTU is acknowledged within the device's and refused beyond") {
  const auto [mtu, refused] = GENERATE(
      table<uint64_t, uint64_t>({{67, 1}, {68, 0}, {1400, 0}, {1401, 1}, {~uint64_t{0}, 1}}));
  Session session(offered());
  session.handle(
      with(Request::SetProtocolFeatures, protocol_feature::kMtu | protocol_feature::kReplyAck));
  session.handle(with(Request::NetSetMtu, mtu, kVersion | kNeedReplyFlag));
  CHECK(replyTo<uint64_t>(session) == refused);
}

TEST_CASE("a session closes every descriptor it was given") {
  const size_t before = openDescriptors();
  {
    Session session(offered(2));
    setUp(session);
    for (uint32_t i = 0; i < 4; ++i) startRing(session, i);
    startRing(session, 0);  // new kick
    session.handle(with(Request::SetVringErr, uint64_t{0}, eventFd()));
    CHECK(openDescriptors() == before + 1 + 4 + 4 + 1);
  }
  CHECK(openDescriptors() == before);
}
