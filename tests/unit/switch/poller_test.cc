// Pollers with threads: hot and cold queues, sleep, changes while frames pass, several pollers with
// one destination.
#include "deviceplugin/datapath/switch/forwarding/poller.h"

#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/switch/watchers.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::PackedDriver;
using virtqueue::test::SplitDriver;
using namespace std::chrono_literals;

namespace {

constexpr uint16_t kA = 1, kB = 2, kC = 3;
using Clock = std::chrono::steady_clock;

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds patience = 20s) {
  for (const auto end = Clock::now() + patience; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(100us);
  }
  return condition();
}

template <typename Driver>
class Switch {
 public:
  explicit Switch(unsigned ports, unsigned pollers = 1, bool kicks = true, Uplink* uplink = nullptr)
      : epoch(pollers), serving("/tmp/vdpa-poller-test", pollers, ports + 1) {
    for (unsigned i = 1; i <= ports; ++i) {
      pods.push_back(std::make_unique<Pod<Driver>>(static_cast<MacTable::Port>(i), pollers));
      auto& pod = *pods.back();
      kickFds.emplace_back(::eventfd(0, EFD_NONBLOCK));
      if (kicks) pod.transmit->kick = kickFds.back().get();
      table.add(pod.port);
      macs.addStatic(macOf(i), 0, static_cast<MacTable::Port>(i));
      pod.post();
    }
    for (unsigned i = 0; i < pollers; ++i)
      threads.push_back(std::make_unique<Poller>(
          i, std::nullopt, Poller::Shared{epoch, table, macs, offences, uplink}, serving.cell(i)));
    for (unsigned i = 0; i < ports; ++i) threads[i % pollers]->assign(*pods[i]->transmit);
    passed();
  }
  ~Switch() {
    threads.clear();
    epoch.runAll();
  }
  // Waits until all pollers have seen what was changed.
  void passed() {
    bool done = false;
    epoch.afterPass([&] { done = true; });
    CHECK(eventually([&] {
      epoch.runDue();
      return done;
    }));
  }
  Pod<Driver>& pod(unsigned number) { return *pods.at(number - 1); }
  // As a driver does: kicks if it is asked to.
  bool send(unsigned number, const Bytes& frame) {
    auto& pod = this->pod(number);
    const auto before = pod.sends.mark();
    if (!pod.send(frame)) return false;
    virtqueue::fullFence();
    if (pod.sends.wantsKick(before)) {
      ++kicks;
      ::eventfd_write(kickFds[number - 1].get(), 1);
    }
    return true;
  }

  Epoch epoch;
  PortTable table;
  MacTable macs;
  Offences offences;
  ServingPage serving;
  std::vector<std::unique_ptr<Pod<Driver>>> pods;
  std::vector<UniqueFd> kickFds;
  std::vector<std::unique_ptr<Poller>> threads;
  uint64_t kicks = 0;
};

// Gets one frame for each note(), and wakes its poller as a netdev does.
class QuietUplink : public Uplink {
 public:
  void note() {
    ++waiting_;
    if (armed_) ::eventfd_write(wake_.get(), 1);
  }
  size_t receive(unsigned, std::span<UplinkFrame> frames) override {
    if (waiting_ == 0) return 0;
    --waiting_;
    frames[0] = {frame_.data(), static_cast<uint32_t>(frame_.size()), false};
    return 1;
  }
  void release(unsigned) override {}
  Offloads offloads() const override { return Offloads::kNone; }
  size_t send(unsigned, std::span<const Outgoing> frames, size_t&) override {
    return frames.size();
  }
  int wakeFd(unsigned) const override { return wake_.get(); }
  void armWake(unsigned) override { armed_ = true; }
  void disarmWake(unsigned) override {
    armed_ = false;
    eventfd_t ignored;
    ::eventfd_read(wake_.get(), &ignored);
  }

 private:
  const Bytes frame_ = frame(kBroadcast, macOf(99));
  UniqueFd wake_{::eventfd(0, EFD_NONBLOCK)};
  std::atomic<int> waiting_{0};
  std::atomic<bool> armed_{false};
};

double processTime() {  // seconds
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

TEMPLATE_TEST_CASE("frames that come one by one are all forwarded, from sleep and without", "",
                   SplitDriver, PackedDriver) {
  const bool kicks = GENERATE(true, false);
  Switch<TestType> at(2, 1, kicks);
  for (int i = 0; i < 300; ++i) {
    const Bytes bytes = frame(macOf(kB), macOf(kA), 60 + static_cast<size_t>(i));
    REQUIRE(at.send(kA, bytes));
    Bytes got;
    // Long before the poller would look by itself.
    REQUIRE(eventually([&] { return !(got = at.pod(kB).next()).empty(); }, 900ms));
    CHECK(got == bytes);
    if (i % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i * 10));
  }
  if (kicks) CHECK(at.kicks > 0);
}

TEST_CASE("no wake-up is lost when a queue gets cold at the moment of a frame") {
  Switch<SplitDriver> at(2);
  uint64_t sent = 0, got = 0;
  // Gaps about as long as the poller's patience.
  for (int i = 0; i < 6000; ++i) {
    REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
    ++sent;
    const auto end = Clock::now() + std::chrono::nanoseconds(i % 1000 * 150);
    while (Clock::now() < end) {
    }
    got += at.pod(kB).received().size();
    const auto patience = Clock::now() + 900ms;
    while (got + 60 < sent && Clock::now() < patience) got += at.pod(kB).received().size();
    REQUIRE(got + 60 >= sent);
  }
  CHECK(eventually([&] { return (got += at.pod(kB).received().size()) == sent; }, 900ms));
  CHECK(at.kicks > 10);
}

TEST_CASE("a poller that pods could stall does not start") {
  rlimit before{};
  ::getrlimit(RLIMIT_SIGPENDING, &before);
  const rlimit none{0, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_SIGPENDING, &none) == 0);  // timers need one each
  Epoch epoch(1);
  PortTable table;
  MacTable macs;
  Offences offences;
  ServingPage serving("/tmp/vdpa-poller-test", 1, 1);
  CHECK_THROWS_AS(Poller(0, std::nullopt, Poller::Shared{epoch, table, macs, offences, nullptr},
                         serving.cell(0)),
                  std::system_error);
  ::setrlimit(RLIMIT_SIGPENDING, &before);
}

TEST_CASE("an idle poller takes no time") {
  Switch<SplitDriver> at(3);
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  REQUIRE(eventually([&] { return !at.pod(kB).next().empty(); }));
  const double before = processTime();
  std::this_thread::sleep_for(500ms);
  CHECK(processTime() - before < 0.01);
}

TEST_CASE("an idle uplink wakes its poller") {
  QuietUplink uplink;
  Switch<SplitDriver> at(2, 1, true, &uplink);
  Port port;
  port.counters = std::vector<Counters>(1);
  PortView view;
  view.linkUp = true;
  view.maxFrame = 1514;
  port.view = &view;
  at.table.add(port);
  at.table.setMembers(0, std::make_unique<const std::vector<Port*>>(
                             std::vector<Port*>{&at.pod(kA).port, &at.pod(kB).port}));
  at.passed();
  for (int i = 0; i < 100; ++i) {
    uplink.note();
    REQUIRE(eventually([&] { return !at.pod(kA).next().empty(); }, 900ms));
    std::this_thread::sleep_for(std::chrono::microseconds(i * 10));
  }
  const double before = processTime();
  std::this_thread::sleep_for(300ms);
  CHECK(processTime() - before < 0.01);
  // The poller may use the port until it has ended.
  at.threads.clear();
}

TEST_CASE("a queue without an eventfd to kick is polled, at little cost") {
  Switch<SplitDriver> at(2, 1, false);
  std::this_thread::sleep_for(10ms);
  const double before = processTime();
  std::this_thread::sleep_for(500ms);
  CHECK(processTime() - before < 0.1);
}

TEST_CASE("frames are held, and forwarded when they are not held any more") {
  Switch<SplitDriver> at(2);
  std::this_thread::sleep_for(10ms);  // its queues are cold: the pod kicks while it is held
  at.threads[0]->hold(true);
  at.passed();
  for (int i = 0; i < 10; ++i) REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  std::this_thread::sleep_for(20ms);
  CHECK(at.kicks > 0);
  CHECK(at.pod(kB).received().empty());
  at.threads[0]->hold(false);
  at.passed();
  CHECK(eventually([&] { return !at.pod(kB).next().empty(); }, 900ms));
}

TEST_CASE("a port's queues take turns, although the port uses up its time with one burst") {
  Switch<SplitDriver> at(3);
  // Pod C's ring is pod A's second one.
  at.threads[0]->withdraw(*at.pod(kC).transmit);
  at.passed();
  TransmitQueue& second = *at.pod(kC).transmit;
  second.port = &at.pod(kA).port;
  second.index = 3;
  at.threads[0]->assign(second);
  at.threads[0]->hold(true);
  at.passed();
  const size_t each = at.pod(kA).kRingSize;
  for (size_t i = 0; i < each; ++i) {
    REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA), 60)));
    REQUIRE(at.send(kC, frame(macOf(kB), macOf(kA), 61)));
  }
  at.threads[0]->hold(false);
  at.passed();
  // The receiver has room for half of them.
  size_t ofSecond = 0;
  for (size_t i = 0; i < each; ++i) {
    Bytes got;
    REQUIRE(eventually([&] { return !(got = at.pod(kB).next()).empty(); }));
    if (got.size() == 61) ++ofSecond;
  }
  CHECK(ofSecond == each / 2);
}

TEST_CASE("a port that gets the number of another owes a poller nothing of its") {
  Switch<SplitDriver> at(2);
  at.threads[0]->withdraw(*at.pod(kA).transmit);
  at.threads[0]->forget(kA);
  at.threads[0]->assign(*at.pod(kA).transmit);
  at.passed();
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  CHECK(eventually([&] { return !at.pod(kB).next().empty(); }, 900ms));
}

TEST_CASE("a withdrawn queue is not served, and can be assigned again") {
  Switch<SplitDriver> at(2);
  at.threads[0]->withdraw(*at.pod(kA).transmit);
  at.passed();
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  std::this_thread::sleep_for(20ms);
  CHECK(at.pod(kB).received().empty());
  at.threads[0]->assign(*at.pod(kA).transmit);
  at.passed();
  CHECK(eventually([&] { return !at.pod(kB).next().empty(); }, 900ms));
}

TEST_CASE("queues are withdrawn in any order, and the others are served") {
  Switch<SplitDriver> at(5);
  for (const unsigned gone : {2, 5, 1}) {
    at.threads[0]->withdraw(*at.pod(gone).transmit);
    at.passed();
  }
  at.threads[0]->withdraw(*at.pod(2).transmit);  // changes nothing
  at.threads[0]->assign(*at.pod(2).transmit);
  at.passed();
  for (const unsigned sender : {2u, 3u, 4u}) {
    REQUIRE(at.send(sender, frame(macOf(5), macOf(sender))));
    CHECK(eventually([&] { return !at.pod(5).next().empty(); }, 900ms));
  }
  REQUIRE(at.send(1, frame(macOf(5), macOf(1))));
  std::this_thread::sleep_for(20ms);
  CHECK(at.pod(5).received().empty());
}

TEST_CASE("the rate of what a pod sends is exact, and its frames wait in the ring") {
  Switch<SplitDriver> at(2);
  RateLimit limit(measureCyclesPerSecond());
  limit.set(8, 1514);  // 1 MB/s
  at.pod(kA).view.sendLimit = &limit;
  PortView view = at.pod(kA).view;
  at.pod(kA).port.view = &view;
  at.passed();
  const auto start = Clock::now();
  size_t got = 0;
  while (got < 300) {
    at.send(kA, frame(macOf(kB), macOf(kA), 1000));
    got += at.pod(kB).received().size();
    std::this_thread::sleep_for(100us);
    REQUIRE(Clock::now() - start < 20s);
  }
  // 10 ms of credit.
  CHECK(Clock::now() - start > 250ms);
  CHECK(at.pod(kA).drops() == 0);
}

TEST_CASE("a pod whose eventfd blocks costs the others 50 ms, once") {
  Switch<SplitDriver> at(3);
  UniqueFd blocking(::eventfd(0, 0));
  REQUIRE(::eventfd_write(blocking.get(), UINT64_MAX - 1) == 0);
  at.pod(kB).receive->call = blocking.get();
  at.pod(kB).receives.allCalls();
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  std::vector<Offences::Report> reports;
  REQUIRE(eventually([&] { return !(reports = at.offences.take()).empty(); }));
  CHECK(reports[0].port == kB);
  CHECK(reports[0].offence == Offence::kCallBlocks);
  REQUIRE(eventually([&] { return at.pod(kB).transmit->broken.load(); }));
  REQUIRE(at.send(kA, frame(macOf(kC), macOf(kA))));
  CHECK(eventually([&] { return !at.pod(kC).next().empty(); }, 900ms));
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  CHECK(eventually([&] { return at.pod(kB).drops(Drop::rxFull) > 0; }));
}

TEST_CASE("a pod whose eventfd blocks a late notification is not served, although nobody sends") {
  Switch<SplitDriver> at(2);
  const UniqueFd call(::eventfd(0, EFD_NONBLOCK)), blocking(::eventfd(0, 0));
  REQUIRE(::eventfd_write(blocking.get(), UINT64_MAX - 1) == 0);
  const Watchers watchers(call.get(), 15000);
  at.pod(kB).receive->call = call.get();
  at.pod(kB).receives.allCalls();
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  pollfd notified{call.get(), POLLIN, 0};
  REQUIRE(::poll(&notified, 1, 10000) == 1);
  REQUIRE(::dup2(blocking.get(), call.get()) >= 0);
  REQUIRE(at.send(kA, frame(macOf(kB), macOf(kA))));
  CHECK(eventually([&] { return !at.offences.take().empty(); }));
  CHECK(eventually([&] { return at.pod(kB).transmit->broken && at.pod(kB).receive->broken; }));
}

TEST_CASE("a pod whose kick stalls a poller that begins or ends to watch it is reported") {
  Switch<SplitDriver> at(2);
  const Watchers watchers(at.kickFds[0].get(), 15000, 12);
  if (watchers.count() < 10000) {
    WARN("only " << watchers.count() << " descriptors: the test needs 10,000");
    return;
  }
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) ::eventfd_write(at.kickFds[0].get(), 1);
  });
  std::vector<Offences::Report> reports;
  eventually([&] {
    at.threads[0]->withdraw(*at.pod(kA).transmit);
    at.threads[0]->assign(*at.pod(kA).transmit);
    at.passed();
    reports = at.offences.take();
    return !reports.empty();
  });
  stop = true;
  writer.join();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].port == kA);
  CHECK(reports[0].offence == Offence::kKickStalls);
}

TEMPLATE_TEST_CASE("several pollers deliver to one pod", "", SplitDriver, PackedDriver) {
  constexpr unsigned kPorts = 4, kFrames = 2000;
  Switch<TestType> at(kPorts, 3);
  std::atomic<bool> stop{false};
  std::vector<std::thread> senders;
  std::array<std::atomic<uint32_t>, kPorts + 1> sent{};
  std::array<uint32_t, kPorts + 1> last{};
  // Pod 1 receives from the others, which each number their frames.
  for (unsigned number = 2; number <= kPorts; ++number)
    senders.emplace_back([&, number] {
      for (uint32_t i = 1; i <= kFrames && !stop;) {
        Bytes bytes = frame(macOf(1), macOf(number), 60 + i % 200);
        std::memcpy(bytes.data() + 20, &i, sizeof i);
        auto& pod = at.pod(number);
        const auto before = pod.sends.mark();
        if (!pod.send(bytes)) {
          std::this_thread::yield();
          continue;
        }
        virtqueue::fullFence();
        if (pod.sends.wantsKick(before)) ::eventfd_write(at.kickFds[number - 1].get(), 1);
        sent[number] = i++;
      }
    });
  uint64_t got = 0;
  bool ordered = true, sound = true;
  const auto total = [&] { return got + at.pod(1).drops(Drop::rxFull); };
  const bool all = eventually([&] {
    for (const Received& received : at.pod(1).received()) {
      uint32_t number = 0;
      std::memcpy(&number, received.frame.data() + 20, sizeof number);
      const auto from = static_cast<unsigned>(received.frame[11]);
      if (from < 2 || from > kPorts || received.frame.size() != 60 + number % 200) {
        sound = false;
        continue;
      }
      if (number <= last[from]) ordered = false;
      last[from] = number;
      ++got;
    }
    return total() == uint64_t{kPorts - 1} * kFrames;
  });
  stop = true;
  for (auto& sender : senders) sender.join();
  CHECK(all);
  CHECK(sound);
  CHECK(ordered);
  // The buffers that were there at first; more if this thread gets to run.
  CHECK(got >= at.pod(1).kRingSize);
  CHECK(at.offences.take().empty());
}
