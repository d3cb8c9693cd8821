// Watches and timers that remove themselves, also while they run, and tasks from other threads.
#include "common/event_loop.h"

#include <catch2/catch.hpp>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/unique_fd.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

// Stops the loop after a while, so that a failure does not hang.
struct Limited {
  EventLoop loop;
  EventLoop::Timer limit{loop, [this] { loop.stop(); }};
  Limited() { limit.start(10s); }
  bool run() {
    loop.run();
    return limit.pending();
  }
};

UniqueFd readableFd() {
  return UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
}

}  // namespace

TEST_CASE("timers run in their order, each once") {
  Limited limited;
  std::vector<int> ran;
  EventLoop::Timer third(limited.loop, [&] {
    ran.push_back(3);
    limited.loop.stop();
  });
  EventLoop::Timer first(limited.loop, [&] { ran.push_back(1); });
  EventLoop::Timer second(limited.loop, [&] { ran.push_back(2); });
  third.start(30ms);
  first.start(0ms);
  second.start(10ms);
  REQUIRE(limited.run());
  CHECK(ran == std::vector{1, 2, 3});
  CHECK_FALSE(first.pending());
}

TEST_CASE("a timer that is started again waits again; within a time it keeps the earlier one") {
  Limited limited;
  const auto begin = EventLoop::Clock::now();
  std::vector<EventLoop::Clock::duration> ran;
  EventLoop::Timer later(limited.loop, [&] {
    ran.push_back(EventLoop::Clock::now() - begin);
    limited.loop.stop();
  });
  EventLoop::Timer early(limited.loop, [&] { ran.push_back(EventLoop::Clock::now() - begin); });
  later.start(1ms);
  later.start(60ms);
  early.start(30ms);
  early.startWithin(10s);
  REQUIRE(limited.run());
  REQUIRE(ran.size() == 2);
  CHECK(ran[0] >= 30ms);
  CHECK(ran[0] < ran[1]);
  CHECK(ran[1] >= 60ms);
  early.start(10s);
  early.startWithin(1ms);
  later.start(30ms);
  ran.clear();
  REQUIRE(limited.run());
  CHECK(ran.size() == 2);
}

TEST_CASE("a timer and a watch may be destroyed by what they call") {
  Limited limited;
  const UniqueFd fd = readableFd();
  int calls = 0;
  std::optional<EventLoop::Timer> timer;
  EventLoop::Watch watch;
  const auto kept = std::make_shared<int>(0);
  timer.emplace(limited.loop, [&, kept] {
    timer.reset();
    ++*kept;  // its captures still exist
    ++calls;
  });
  watch = EventLoop::Watch(limited.loop, fd.get(), EPOLLIN, [&, kept](uint32_t) {
    watch.reset();
    ++*kept;
    ++calls;
  });
  timer->start(0ms);
  EventLoop::Timer end(limited.loop, [&] { limited.loop.stop(); });
  end.start(30ms);
  REQUIRE(limited.run());
  CHECK(calls == 2);
  CHECK(kept.use_count() == 1);
}

TEST_CASE("a destroyed timer or watch is not called, though its time has come already") {
  Limited limited;
  const UniqueFd one = readableFd(), other = readableFd();
  std::optional<EventLoop::Timer> timer;
  timer.emplace(limited.loop, [] { FAIL("called on a destroyed timer"); });
  EventLoop::Timer before(limited.loop, [&] { timer.reset(); });
  before.start(0ms);
  timer->start(0ms);
  // Both are ready in one wait; the one that comes first removes the other.
  EventLoop::Watch first, second;
  int calls = 0;
  const auto endOther = [&](EventLoop::Watch& mine, EventLoop::Watch& others) {
    return [&](uint32_t) {
      ++calls;
      others.reset();
      mine.reset();
      limited.loop.stop();
    };
  };
  first = EventLoop::Watch(limited.loop, one.get(), EPOLLIN, endOther(first, second));
  second = EventLoop::Watch(limited.loop, other.get(), EPOLLIN, endOther(second, first));
  REQUIRE(limited.run());
  CHECK(calls == 1);
}

TEST_CASE("a descriptor with a number that was used before has no event of its predecessor") {
  Limited limited;
  UniqueFd trigger = readableFd(), old = readableFd();
  std::optional<UniqueFd> next;
  EventLoop::Watch watch, successor;
  EventLoop::Timer end(limited.loop, [&] { limited.loop.stop(); });
  bool replaced = false;
  const auto replace = [&](uint32_t) {
    if (std::exchange(replaced, true)) return;
    watch.reset();
    const int number = old.get();
    old.reset();
    next.emplace(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    REQUIRE(next->get() == number);
    successor = EventLoop::Watch(limited.loop, number, EPOLLIN,
                                 [](uint32_t) { FAIL("nothing can be read"); });
  };
  watch = EventLoop::Watch(limited.loop, old.get(), EPOLLIN, replace);
  EventLoop::Watch also(limited.loop, trigger.get(), EPOLLIN, [&](uint32_t events) {
    replace(events);
    also.reset();
    end.start(20ms);
  });
  REQUIRE(limited.run());
  CHECK(replaced);
}

TEST_CASE("a watch is of the events that it names, and moves") {
  Limited limited;
  const UniqueFd fd = readableFd();
  std::vector<uint32_t> seen;
  EventLoop::Watch watch(limited.loop, fd.get(), EPOLLOUT, [&](uint32_t events) {
    seen.push_back(events);
    if (seen.size() == 2) limited.loop.stop();
  });
  EventLoop::Watch moved = std::move(watch);
  EventLoop::Timer change(limited.loop, [&] { moved.change(EPOLLIN); });
  change.start(0ms);
  REQUIRE(limited.run());
  CHECK(seen.front() == EPOLLOUT);
  CHECK(seen.back() == EPOLLIN);
}

TEST_CASE("tasks of other threads run in order; those of an owner that has gone are dropped") {
  Limited limited;
  std::vector<int> ran;
  auto owner = std::make_unique<EventLoop::Lifetime>(limited.loop);
  const auto post = owner->poster();
  std::thread other([&] {
    post([&] { ran.push_back(1); });
    limited.loop.post([&] {
      ran.push_back(2);
      owner.reset();
    });
    post([&] { ran.push_back(3); });
    limited.loop.post([&] { limited.loop.stop(); });
  });
  const bool stopped = limited.run();
  other.join();
  post([&] { ran.push_back(4); });
  REQUIRE(stopped);
  CHECK(ran == std::vector{1, 2});
}

TEST_CASE("the loop waits for those who hold a ticket") {
  EventLoop loop;
  auto ticket = std::make_unique<EventLoop::Ticket>(loop);
  std::thread holder([&] {
    std::this_thread::sleep_for(30ms);
    ticket.reset();
  });
  loop.waitForTickets();
  CHECK_FALSE(ticket);
  holder.join();
}
