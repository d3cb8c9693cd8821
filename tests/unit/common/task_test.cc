// Coroutines on a loop: they return values and errors, and destruction cancels them.
#include "common/task.h"

#include <catch2/catch.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/event_loop.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

Task<int> twice(EventLoop& loop, int value) {
  co_await sleepFor(loop, 1ms);
  if (value < 0) throw std::runtime_error("negative");
  co_return 2 * value;
}

Task<std::string> describe(EventLoop& loop, int value) {
  try {
    const int result = co_await twice(loop, value);
    co_return std::to_string(result);
  } catch (const std::exception& error) {
    co_return std::string(error.what());
  }
}

Task<void> collect(EventLoop& loop, std::vector<std::string>& into) {
  for (const int value : {1, -1, 21}) {
    auto text = co_await describe(loop, value);
    into.push_back(std::move(text));
  }
  loop.stop();
}

// Reports its destruction.
struct Witness {
  std::vector<std::string>& log;
  std::string name;
  ~Witness() { log.push_back(name); }
};

Task<void> waitFor(Notification& changed, std::vector<std::string>& log, std::string name,
                   std::optional<std::chrono::milliseconds> time) {
  const Witness witness{log, "end of " + name};
  const bool notified = time ? co_await changed.waitFor(*time) : co_await changed.wait();
  log.push_back(name + (notified ? " was notified" : " waited in vain"));
}

void runFor(EventLoop& loop, std::chrono::milliseconds time) {
  EventLoop::Timer end(loop, [&] { loop.stop(); });
  end.start(time);
  loop.run();
}

}  // namespace

TEST_CASE("a task gives its value or its error to whoever awaits it") {
  EventLoop loop;
  std::vector<std::string> got;
  const Job job(collect(loop, got));
  CHECK_FALSE(job.done());
  loop.run();
  CHECK(job.done());
  CHECK(got == std::vector<std::string>{"2", "negative", "42"});
}

TEST_CASE("what a job does not catch comes out of the loop") {
  EventLoop loop;
  const Job job([](EventLoop& on) -> Task<void> { (void)co_await twice(on, -1); }(loop));
  CHECK_THROWS_WITH(loop.run(), "negative");
}

TEST_CASE("a notification reaches all who wait, and only those; a time limit ends the waiting") {
  EventLoop loop;
  Notification changed(loop);
  std::vector<std::string> log;
  changed.notify();  // no task waits yet
  const Job first(waitFor(changed, log, "first", std::nullopt));
  const Job second(waitFor(changed, log, "second", 10s));
  const Job third(waitFor(changed, log, "third", 5ms));
  runFor(loop, 20ms);
  CHECK(log == std::vector<std::string>{"third waited in vain", "end of third"});
  log.clear();
  changed.notify();
  CHECK(log.empty());  // not from inside notify()
  runFor(loop, 20ms);
  CHECK(log == std::vector<std::string>{"first was notified", "end of first", "second was notified",
                                        "end of second"});
}

TEST_CASE("a job that is destroyed is cancelled with all that it awaits") {
  EventLoop loop;
  Notification changed(loop);
  std::vector<std::string> log;
  std::optional<Job> job;
  job.emplace([](Notification& on, std::vector<std::string>& to) -> Task<void> {
    const Witness witness{to, "end of outer"};
    co_await waitFor(on, to, "inner", 1ms);
  }(changed, log));
  job.reset();
  CHECK(log == std::vector<std::string>{"end of inner", "end of outer"});
  changed.notify();
  runFor(loop, 10ms);
  CHECK(log.size() == 2);
}
