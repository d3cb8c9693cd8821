// The answers to a front-end that follows the protocol.
#include "deviceplugin/datapath/worker/protocol/session.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/worker/protocol/vhost_device.h"
#include "deviceplugin/datapath/worker/protocol/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::worker;
using namespace vdpa::worker::test;

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

  SECTION("beyond its end the answer is empty") {
    whole.header.offset = GENERATE(1u, 13u, 0xffffffffu);
    session.handle(with(Request::GetConfig, whole));
    CHECK(session.takeReply()->size() == sizeof(MessageHeader));
  }
  SECTION("the driver cannot change it") {
    session.handle(with(Request::SetConfig, whole, kVersion | kNeedReplyFlag));
    CHECK(replyTo<uint64_t>(session) == 1);
  }
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
