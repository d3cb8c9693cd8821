// Notifications that a pod makes expensive, or lets wait.
#include "deviceplugin/datapath/switch/forwarding/notifier.h"

#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/switch/watchers.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::SplitDriver;

namespace {

uint64_t count(int fd) {
  eventfd_t value = 0;
  return ::eventfd_read(fd, &value) == 0 ? value : 0;
}

bool interrupted(int milliseconds) {
  return ::poll(nullptr, 0, milliseconds) == -1 && errno == EINTR;
}

UniqueFd fullEvent(int flags) {
  UniqueFd fd(::eventfd(0, flags));
  REQUIRE(::eventfd_write(fd.get(), UINT64_MAX - 1) == 0);
  return fd;
}

struct Notified {
  Notified() { pod.receive->call = event.get(); }
  Queue* find(MacTable::Port port, uint16_t index) {
    return port == 1 && index == 0 ? pod.receive.get() : nullptr;
  }
  void late(uint64_t now) {
    notifier.notifyLate(now,
                        [this](MacTable::Port port, uint16_t index) { return find(port, index); });
  }

  uint64_t hz = measureCyclesPerSecond();
  Offences offences;
  CpuTime cpu{hz};
  FairShare share{hz};
  Notifier notifier{offences, share, cpu, hz};
  Pod<SplitDriver> pod{1};
  UniqueFd event{::eventfd(0, EFD_NONBLOCK)};
};

}  // namespace

TEST_CASE("a usual notification is made at once, and paid by nobody else") {
  Notified at;
  at.notifier.notify(*at.pod.receive);
  CHECK(count(at.event.get()) == 1);
  CHECK(at.notifier.takeOffender() == MacTable::kNoPort);
  at.pod.receive->call = -1;
  at.notifier.notify(*at.pod.receive);
}

TEST_CASE("a write that waits ends, and its pod is reported") {
  Notified at;
  at.notifier.begin();
  const UniqueFd blocking = fullEvent(0);
  at.pod.receive->call = blocking.get();
  at.notifier.notify(*at.pod.receive);  // or it never returns
  CHECK(at.pod.receive->broken);
  CHECK(at.notifier.takeOffender() == 1);
  CHECK(at.notifier.takeOffender() == MacTable::kNoPort);
  const auto reports = at.offences.take();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].port == 1);
  CHECK(reports[0].offence == Offence::kCallBlocks);
  at.notifier.notify(*at.pod.receive);
  CHECK(at.offences.take().empty());
}

TEST_CASE("a full eventfd that doesn't block is nobody's fault") {
  Notified at;
  at.notifier.begin();
  const UniqueFd full = fullEvent(EFD_NONBLOCK);
  at.pod.receive->call = full.get();
  at.notifier.notify(*at.pod.receive);
  CHECK_FALSE(at.pod.receive->broken);
  CHECK(at.offences.take().empty());
}

TEST_CASE("a poller at rest is woken once more at the most, and guarded again when it wakes") {
  Notified at;
  at.notifier.begin();
  CHECK(interrupted(10000));
  CHECK(interrupted(10000));
  at.notifier.rest();
  CHECK(interrupted(10000));
  CHECK_FALSE(interrupted(4 * Notifier::kTimeout));
  at.notifier.wake();
  CHECK(interrupted(10000));
}

TEST_CASE("expensive notifications are charged, wait, and are not lost") {
  Notified at;
  const Watchers watchers(at.event.get(), 15000);
  if (watchers.count() < 2000) {
    WARN("only " << watchers.count() << " descriptors: the test needs 2,000");
    return;
  }
  at.cpu.refresh(cycles());
  // The scheduler may take the time of any single one.
  for (int i = 0; i < 100 && at.notifier.due() == Notifier::kNever; ++i) {
    at.notifier.notify(*at.pod.receive);
    at.notifier.notify(*at.pod.receive);
  }
  const uint64_t due = at.notifier.due();
  REQUIRE(due != Notifier::kNever);
  const uint64_t excess = at.notifier.takeExcess();
  CHECK(excess > 0);
  CHECK(at.share.paidAt(1) > 0);
  CHECK_FALSE(at.share.mayServe(1));
  // Several become one.
  count(at.event.get());
  at.notifier.notify(*at.pod.receive);
  at.notifier.notify(*at.pod.receive);
  CHECK(count(at.event.get()) == 0);
  at.late(due - 1);
  CHECK(count(at.event.get()) == 0);
  while (cycles() < due) {
  }
  at.late(cycles());
  CHECK(count(at.event.get()) == 1);
  CHECK(at.notifier.due() == Notifier::kNever);
  CHECK(at.offences.take().empty());
}

TEST_CASE("a single slow write delays nothing, several do") {
  for (int i = 0; i < 100; ++i) {
    Notified at;
    at.cpu.refresh(cycles());
    {
      const Watchers watchers(at.event.get(), 400);
      at.notifier.notify(*at.pod.receive);
    }
    if (at.notifier.takeExcess() == 0) continue;
    at.notifier.notify(*at.pod.receive);
    if (at.notifier.due() != Notifier::kNever) continue;  // something else took time as well
    CHECK(count(at.event.get()) == 2);
    const Watchers watchers(at.event.get(), 400);
    for (int n = 0; n < 10000 && at.notifier.due() == Notifier::kNever; ++n)
      at.notifier.notify(*at.pod.receive);
    CHECK(at.notifier.due() != Notifier::kNever);
    return;
  }
  FAIL("no write was slow");
}

TEST_CASE("expensive notifications of all ports share a part of the time, one at once") {
  Notified at;
  Pod<SplitDriver> other(2);
  other.receive->call = at.event.get();
  const Watchers watchers(at.event.get(), 15000);
  if (watchers.count() < 10000) {
    WARN("only " << watchers.count() << " descriptors: the test needs 10,000");
    return;
  }
  at.cpu.refresh(cycles());
  at.notifier.notify(*at.pod.receive);
  at.notifier.takeExcess();
  at.notifier.notify(*other.receive);
  const uint64_t excess = at.notifier.takeExcess();
  at.notifier.notify(*other.receive);
  const uint64_t second = at.notifier.due();
  at.notifier.notify(*at.pod.receive);
  const uint64_t first = at.notifier.due();
  REQUIRE(second != Notifier::kNever);
  CHECK(second > first + 10 * excess);
  while (cycles() < second) {
  }
  count(at.event.get());
  const auto find = [&](MacTable::Port port, uint16_t) -> Queue* {
    return port == 1 ? at.pod.receive.get() : other.receive.get();
  };
  at.notifier.notifyLate(second, find);
  CHECK(count(at.event.get()) == 1);
  at.notifier.notifyLate(second, find);
  CHECK(count(at.event.get()) == 1);
}

TEST_CASE("a write that takes as long as one may wait is an offence as well") {
  Notified at;
  const Watchers watchers(at.event.get(), 15000);
  if (watchers.count() < 2000) {
    WARN("only " << watchers.count() << " descriptors: the test needs 2,000");
    return;
  }
  at.cpu.refresh(cycles());
  Notifier impatient(at.offences, at.share, at.cpu, at.hz / 1000);  // 50 us
  impatient.notify(*at.pod.receive);
  CHECK(at.pod.receive->broken);
  CHECK(impatient.takeOffender() == 1);
  const auto reports = at.offences.take();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].offence == Offence::kCallBlocks);
}

TEST_CASE("a port that gets the number of another owes nothing of its") {
  Notified at;
  {
    const Watchers watchers(at.event.get(), 15000);
    if (watchers.count() < 2000) {
      WARN("only " << watchers.count() << " descriptors: the test needs 2,000");
      return;
    }
    at.cpu.refresh(cycles());
    for (int i = 0; i < 100 && at.notifier.due() == Notifier::kNever; ++i)
      at.notifier.notify(*at.pod.receive);
  }
  REQUIRE(at.notifier.due() != Notifier::kNever);
  REQUIRE_FALSE(at.share.mayServe(1));
  at.notifier.forget(1);
  at.share.forget(1);
  CHECK(at.notifier.due() == Notifier::kNever);
  CHECK(at.share.mayServe(1));
  count(at.event.get());
  at.notifier.notify(*at.pod.receive);
  CHECK(count(at.event.get()) == 1);
}
