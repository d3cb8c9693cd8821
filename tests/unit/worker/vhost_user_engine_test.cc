// The worker's side of the link to an engine, beside one in the same loop.
#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"

#include <catch2/catch.hpp>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::worker;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

namespace {

const std::string kPath = "/tmp/engine-test-" + std::to_string(::getpid()) + ".sock";

// Says yes to everything that a session does.
class FakeEngine {
 public:
  FakeEngine(EventLoop& loop, const OfferedFeatures& offered)
      : loop_(loop),
        offered_(offered),
        listener_(listenUnix(kPath, 0600)),
        listening_(loop, listener_.get(), EPOLLIN, [this](uint32_t) { accept(); }) {}
  ~FakeEngine() { ::unlink(kPath.c_str()); }

  Session* session() { return session_ ? &*session_ : nullptr; }
  int connections() const { return connections_; }

 private:
  void accept() {
    watch_.reset();
    socket_.emplace(UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK)));
    session_.emplace(offered_);
    ++connections_;
    watch_ = EventLoop::Watch(loop_, socket_->fd(), EPOLLIN, [this](uint32_t) { serve(); });
  }
  void serve() {
    while (auto message = socket_->receive()) {
      session_->handle(std::move(*message));
      if (auto reply = session_->takeReply()) socket_->send(std::move(*reply));
    }
    if (socket_->ended()) watch_.reset();
  }

  EventLoop& loop_;
  const OfferedFeatures offered_;
  UniqueFd listener_;
  EventLoop::Watch listening_, watch_;
  std::optional<MessageSocket> socket_;
  std::optional<Session> session_;
  int connections_ = 0;
};

struct Worker {
  Worker()
      : engine(loop, kPath,
               {[](bool, const std::string&) {}, [] {},
                [this](const std::string& reason) { failures.push_back(reason); },
                [this](bool up) { links.push_back(up); }}) {}

  void until(const std::function<bool()>& condition) {
    using namespace std::chrono;
    const auto deadline = steady_clock::now() + seconds(10);
    EventLoop::Timer timer(loop, [&] {
      if (condition() || steady_clock::now() > deadline) return loop.stop();
      timer.start(milliseconds(1));
    });
    timer.start(milliseconds(0));
    loop.run();
    REQUIRE(condition());
  }
  void untilUp() {
    until([&] { return engine.up() && engine.settled(); });
  }
  void untilRunning() {
    until([&] { return engine.running() && engine.settled(); });
  }

  EventLoop loop;
  std::vector<std::string> failures;
  std::vector<bool> links;
  VhostUserEngine engine;
};

// Without a configuration space it is no switch of ours.
OfferedFeatures offeredBy(bool ours) {
  OfferedFeatures features = offered();
  if (!ours) features.protocolFeatures &= ~protocol_feature::kConfig;
  return features;
}

OfferedFeatures switchWith(uint64_t more) {
  OfferedFeatures all = offered();
  all.features |= more;
  return all;
}

void startRings(Session& session) {
  for (uint32_t i = 0; i < 2; ++i) startRing(session, i);
}

// A pod with running rings that has agreed on `features`.
Session podWith(uint64_t features) {
  Session session(switchWith(features | kWorkersFeatures));
  setUp(session, feature::kVersion1 | features);
  startRings(session);
  return session;
}

}  // namespace

TEST_CASE("An engine gets what the driver agreed on, but for what the worker does itself") {
  Worker worker;
  FakeEngine engine(worker.loop, switchWith(feature::kChecksum));
  worker.untilUp();
  Session pod = podWith(feature::kChecksum | kWorkersFeatures);
  worker.engine.follow(&pod.device());
  worker.engine.update();
  worker.untilRunning();
  CHECK(engine.session()->device().features ==
        (feature::kVersion1 | feature::kChecksum | feature::kProtocolFeatures));
  CHECK(worker.engine.whyWaiting().empty());
  worker.engine.release();
}

TEST_CASE("A driver whose features an engine lacks waits for another, and keeps its session") {
  Worker worker;
  std::optional<FakeEngine> engine(std::in_place, worker.loop, offered());
  worker.untilUp();
  Session pod = podWith(feature::kChecksum);
  worker.engine.follow(&pod.device());
  worker.engine.update();
  CHECK(worker.engine.settled());
  CHECK_FALSE(worker.engine.running());
  CHECK(worker.engine.up());
  CHECK_THAT(worker.engine.whyWaiting(), Catch::Contains("lacks the offloads CSUM that"));
  CHECK_FALSE(engine->session()->device().rings[0].started);

  SECTION("an engine that has them comes") {
    engine.reset();
    engine.emplace(worker.loop, switchWith(feature::kChecksum));
    worker.until([&] { return worker.engine.running(); });
  }
  SECTION("the driver agrees on others") {
    for (uint32_t i = 0; i < 2; ++i) pod.handle(state(Request::GetVringBase, i, 0));
    worker.engine.update();
    CHECK(worker.engine.whyWaiting().empty());
    pod.handle(with(Request::SetFeatures, feature::kVersion1 | feature::kProtocolFeatures));
    startRings(pod);
    worker.engine.update();
    worker.until([&] { return worker.engine.running(); });
  }
  CHECK(worker.engine.whyWaiting().empty());
  CHECK(worker.failures.empty());
  worker.engine.release();
}

TEST_CASE("The link's status is known with the engine, and each change of it") {
  OfferedFeatures down = offered();
  down.config.status = 0;
  Worker worker;
  FakeEngine engine(worker.loop, down);
  worker.untilUp();
  CHECK_FALSE(worker.engine.limits()->linkUp);
  CHECK(worker.links == std::vector<bool>{false});
  engine.session()->setLink(true);
  worker.until([&] { return worker.links.size() == 2; });
  CHECK(worker.links[1]);
  CHECK(worker.engine.limits()->linkUp);
}

TEST_CASE("The link of an engine without a configuration space counts as up") {
  Worker worker;
  FakeEngine engine(worker.loop, offeredBy(false));
  worker.untilUp();
  CHECK(worker.links == std::vector<bool>{true});
}

TEST_CASE("A packed ring has two positions in our switch, and one in rte_vhost") {
  const bool ours = GENERATE(true, false);
  Worker worker;
  FakeEngine engine(worker.loop, offeredBy(ours));
  worker.untilUp();
  Session pod = podWith(feature::kPackedRing);
  worker.engine.follow(&pod.device());
  worker.engine.update();
  worker.untilRunning();
  engine.session()->device().rings[0].base = 0x80070009;
  pod.handle(state(Request::GetVringBase, 0, 0));
  worker.engine.update();
  worker.until([&] { return worker.engine.settled(); });
  const uint32_t stopped = ours ? 0x80070009 : 0x00090009;
  CHECK(pod.device().rings[0].base == stopped);
  startRing(pod, 0);
  worker.engine.update();
  worker.untilRunning();
  CHECK(engine.session()->device().rings[0].base == stopped);
  worker.engine.release();
}

TEST_CASE("Other files at the same addresses reach our switch at once, rte_vhost only anew") {
  const bool ours = GENERATE(true, false);
  Worker worker;
  FakeEngine engine(worker.loop, offeredBy(ours));
  worker.untilUp();
  Session pod = podWith(0);
  worker.engine.follow(&pod.device());
  worker.engine.update();
  worker.untilRunning();
  pod.handle(memoryTable(memoryFile(0x10000), 0x10000));
  worker.engine.update();
  worker.untilRunning();
  CHECK(engine.session()->device().memory->sameAs(*pod.device().memory));
  CHECK(engine.connections() == (ours ? 1 : 2));
  worker.engine.release();
}
