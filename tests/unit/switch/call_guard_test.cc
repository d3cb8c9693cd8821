// The guard that interrupts a write which a pod lets block, and the pod that it blames.
#include "deviceplugin/datapath/switch/call_guard.h"

#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;

constexpr int kVid = 7, kOtherVid = 8;

UniqueFd fullEventFd(int flags) {
  UniqueFd fd(::eventfd(0, flags));
  REQUIRE(::eventfd_write(fd.get(), UINT64_MAX - 1) == 0);
  return fd;
}

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

// Whether a sleep of `milliseconds` was interrupted.
bool interrupted(int milliseconds) {
  return ::poll(nullptr, 0, milliseconds) == -1 && errno == EINTR;
}

}  // namespace

TEST_CASE("a write that waits ends, and its connection is left alone and reported") {
  StalledCalls stalled;
  CallGuard guard(stalled);
  guard.begin();
  const UniqueFd blocking = fullEventFd(0);
  CHECK(::eventfd_write(blocking.get(), 1) == -1);  // or it never returns
  CHECK_FALSE(guard.left(kVid));
  guard.check(kVid);
  CHECK(guard.left(kVid));
  CHECK_FALSE(guard.left(kOtherVid));
  guard.check(kOtherVid);  // only the first is blamed
  CHECK_FALSE(guard.left(kOtherVid));

  CHECK(readable(stalled.fd()));
  CHECK(stalled.take() == std::vector<int>{kVid});
  CHECK_FALSE(readable(stalled.fd()));
  CHECK(stalled.take().empty());
}

TEST_CASE("a full eventfd that doesn't block is nobody's fault") {
  StalledCalls stalled;
  CallGuard guard(stalled);
  guard.begin();
  const UniqueFd full = fullEventFd(EFD_NONBLOCK);
  CHECK(::eventfd_write(full.get(), 1) == -1);
  guard.check(kVid);
  CHECK_FALSE(guard.left(kVid));
  CHECK(stalled.take().empty());
}

TEST_CASE("a connection is left until a snapshot is without it") {
  StalledCalls stalled;
  CallGuard guard(stalled);
  guard.begin();
  const UniqueFd blocking = fullEventFd(0);
  ::eventfd_write(blocking.get(), 1);
  guard.check(kVid);

  Snapshot snapshot;
  snapshot.sequence = 1;
  snapshot.ports.resize(3);
  snapshot.ports[2].exists = true;
  snapshot.ports[2].vid = kVid;
  guard.follow(snapshot);
  CHECK(guard.left(kVid));
  snapshot.ports[2].vid = -1;
  guard.follow(snapshot);  // not a new one
  CHECK(guard.left(kVid));
  snapshot.sequence = 2;
  guard.follow(snapshot);
  CHECK_FALSE(guard.left(kVid));
}

TEST_CASE("what was reported of a connection that is gone is forgotten") {
  StalledCalls stalled;
  stalled.report(kVid);
  stalled.report(kOtherVid);
  stalled.forget(kVid);
  CHECK(stalled.take() == std::vector<int>{kOtherVid});
}

TEST_CASE("a poller at rest is woken once more at the most, and guarded again when it wakes") {
  StalledCalls stalled;
  CallGuard guard(stalled);
  guard.begin();
  CHECK(interrupted(10000));
  CHECK(interrupted(10000));
  guard.rest();
  CHECK(interrupted(10000));
  CHECK_FALSE(interrupted(4 * CallGuard::kTimeout));
  guard.wake();
  CHECK(interrupted(10000));
}
