// RegistrationSchedule's decisions, with a fake clock.
#include "deviceplugin/kubelet/registration_schedule.h"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace vdpa;
using namespace vdpa::plugin;
using namespace std::chrono_literals;

namespace {

struct Machine {
  RegistrationSchedule registration;
  RegistrationSchedule::Time now{};

  bool dueNow() const {
    const auto due = registration.due();
    return due && *due <= now;
  }
  void registerWithStream() {
    registration.attempted();
    registration.succeeded(now);
    registration.streamStarted(now);
  }
};

}  // namespace

TEST_CASE("nothing is due before the kubelet is there, then at once") {
  Machine m;
  CHECK_FALSE(m.registration.due());
  m.registration.kubeletAppeared(m.now, false);
  CHECK(m.dueNow());
  m.registration.attempted();
  CHECK_FALSE(m.registration.due());  // one call at a time
  m.registration.succeeded(m.now);
  CHECK(m.registration.registered());
  m.registration.streamStarted(m.now);
  m.now += 24h;
  CHECK_FALSE(m.registration.due());  // never while the stream is alive
}

TEST_CASE("a kubelet that was found before it was seen to start is asked once") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  SECTION("while it answers") {
    m.registration.attempted();
    m.registration.kubeletAppeared(m.now, true);
    CHECK_FALSE(m.registration.due());
    m.registration.succeeded(m.now);
    CHECK(m.registration.registered());
  }
  SECTION("when it has answered, and may have been thought to be gone") {
    m.registerWithStream();
    if (GENERATE(false, true)) m.registration.kubeletVanished();
    m.registration.kubeletAppeared(m.now, true);
    CHECK_FALSE(m.registration.due());
    CHECK(m.registration.registered());
  }
  SECTION("but again at once when the call fails, however often others failed before") {
    for (int i = 0; i < 10; ++i) {
      m.registration.attempted();
      m.registration.failed(m.now);
    }
    m.registration.attempted();
    m.registration.kubeletAppeared(m.now, true);
    m.registration.failed(m.now);
    CHECK(*m.registration.due() - m.now == RegistrationSchedule::kFirstRetry);
  }
  SECTION("at once if it was not asked") {
    m.registration.failed(m.now);
    m.registration.kubeletAppeared(m.now, true);
    CHECK(m.dueNow());
  }
}

TEST_CASE("a stream that ends makes it register again at once") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registerWithStream();
  m.now += 10s;
  m.registration.streamEnded(m.now);
  CHECK_FALSE(m.registration.registered());
  CHECK(m.dueNow());
}

TEST_CASE("one of two streams that ends may have been the kubelet's: the other is in the way") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registerWithStream();
  m.registration.streamStarted(m.now);
  CHECK_FALSE(m.registration.streamsInTheWay());
  m.registration.streamEnded(m.now);
  CHECK_FALSE(m.registration.registered());
  CHECK_FALSE(m.registration.due());
  CHECK(m.registration.streamsInTheWay());
  m.registration.streamsGivenUp();
  CHECK_FALSE(m.registration.streamsInTheWay());
  CHECK(m.dueNow());
}

TEST_CASE("streams that end at once, one after the other, back off after the third") {
  Machine m;
  const bool answered = GENERATE(true, false);  // before the stream starts, or after it has ended
  const bool another = GENERATE(false, true);   // stream, which stays in the kubelet's way
  CAPTURE(answered, another);
  const auto registerBriefly = [&] {
    REQUIRE(m.dueNow());
    m.registration.attempted();
    if (answered) m.registration.succeeded(m.now);
    if (another) m.registration.streamStarted(m.now);
    m.registration.streamStarted(m.now);
    m.now += RegistrationSchedule::kBriefStream - 1ms;
    m.registration.streamEnded(m.now);
    if (another) m.registration.streamsGivenUp();
    if (!answered) m.registration.succeeded(m.now + 1ms);
    CHECK_FALSE(m.registration.registered());
  };
  const auto backsOff = [&] {
    for (unsigned i = 0; i < RegistrationSchedule::kBriefStreams; ++i) registerBriefly();
    CHECK(m.dueNow());
    auto expected = RegistrationSchedule::kFirstRetry;
    for (int i = 0; i < 12; ++i) {
      registerBriefly();
      CHECK(*m.registration.due() - m.now == expected);
      m.now = *m.registration.due();
      expected = std::min(expected * 2, RegistrationSchedule::kMaxRetry);
    }
    CHECK(expected == RegistrationSchedule::kMaxRetry);
  };
  m.registration.kubeletAppeared(m.now, false);
  backsOff();
  SECTION("until one lives") {
    m.registerWithStream();
    m.now += RegistrationSchedule::kBriefStream;
    m.registration.streamEnded(m.now);
  }
  SECTION("until a new kubelet") {
    m.registration.kubeletAppeared(m.now, false);
  }
  SECTION("until our own socket was deleted") {
    m.registration.restarted(m.now);
  }
  backsOff();
}

TEST_CASE("a Register that runs into its deadline while the stream lives is a registration") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registration.attempted();
  m.registration.streamStarted(m.now);
  m.registration.failed(m.now + 5s);
  CHECK(m.registration.registered());
  CHECK_FALSE(m.registration.due());
}

TEST_CASE("a stream may start before Register has returned") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registration.attempted();
  m.registration.streamStarted(m.now);
  m.registration.succeeded(m.now);
  CHECK(m.registration.registered());
  CHECK_FALSE(m.registration.due());
}

TEST_CASE("a stream that has ended before Register returns makes it register again at once") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registration.attempted();
  m.registration.streamStarted(m.now);
  m.registration.streamEnded(m.now);
  CHECK_FALSE(m.registration.due());  // one call at a time
  m.registration.succeeded(m.now);
  CHECK_FALSE(m.registration.registered());
  CHECK(m.dueNow());
  m.registerWithStream();
  CHECK(m.registration.registered());
  CHECK_FALSE(m.registration.due());
}

TEST_CASE("a registration without a stream is tried again after its deadline") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registration.attempted();
  m.registration.succeeded(m.now);
  CHECK_FALSE(m.dueNow());
  m.now += RegistrationSchedule::kStreamDeadline;
  CHECK(m.dueNow());
}

TEST_CASE("failures back off, doubling to a cap, and a new kubelet starts over") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  auto expected = RegistrationSchedule::kFirstRetry;
  for (int i = 0; i < 12; ++i) {
    REQUIRE(m.dueNow());
    m.registration.attempted();
    m.registration.failed(m.now);
    CHECK(*m.registration.due() - m.now == expected);
    m.now = *m.registration.due();
    expected = std::min(expected * 2, RegistrationSchedule::kMaxRetry);
  }
  CHECK(expected == RegistrationSchedule::kMaxRetry);
  m.registration.attempted();
  m.registration.failed(m.now);
  m.registration.kubeletAppeared(m.now, false);
  CHECK(m.dueNow());
  m.registration.attempted();
  m.registration.failed(m.now);
  CHECK(*m.registration.due() - m.now == RegistrationSchedule::kFirstRetry);
}

TEST_CASE("a kubelet that vanishes is waited for, and answers of the old one don't count") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registration.attempted();
  m.registration.kubeletVanished();
  CHECK_FALSE(m.registration.due());
  m.registration.kubeletAppeared(m.now, false);
  m.registration.succeeded(m.now);  // of the call to the old kubelet
  CHECK_FALSE(m.registration.registered());
  CHECK(m.dueNow());
}

TEST_CASE("a new socket of our own means registering anew, whatever streams there were") {
  Machine m;
  m.registration.kubeletAppeared(m.now, false);
  m.registerWithStream();
  m.registration.restarted(m.now);
  CHECK_FALSE(m.registration.registered());
  CHECK(m.dueNow());
}
