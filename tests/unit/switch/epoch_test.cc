#include "deviceplugin/datapath/switch/forwarding/epoch.h"

#include <catch2/catch.hpp>
#include <poll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using vdpa::vswitch::Epoch;

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

// Begins a pass of a poller; whether it had to follow a change.
bool pass(Epoch& epoch, unsigned poller) {
  bool followed = false;
  epoch.drain(poller);
  epoch.enter(poller, [&] { followed = true; });
  return followed;
}

}  // namespace

TEST_CASE("a task runs once every poller has begun a pass since") {
  Epoch epoch(2);
  std::string ran;
  CHECK_FALSE(pass(epoch, 0));
  epoch.afterPass([&] { ran += 'a'; });
  CHECK(readable(epoch.wakeFd(0)));
  CHECK(readable(epoch.wakeFd(1)));
  epoch.runDue();
  CHECK(ran.empty());

  CHECK(pass(epoch, 0));
  CHECK_FALSE(readable(epoch.wakeFd(0)));
  CHECK_FALSE(pass(epoch, 0));
  CHECK_FALSE(readable(epoch.fd()));
  epoch.runDue();
  CHECK(ran.empty());

  CHECK(pass(epoch, 1));
  CHECK(readable(epoch.fd()));
  epoch.runDue();
  CHECK(ran == "a");
  CHECK_FALSE(readable(epoch.fd()));
}

TEST_CASE("tasks run in the order of their calls, each after its own pass") {
  Epoch epoch(1);
  std::string ran;
  epoch.afterPass([&] { ran += 'a'; });
  epoch.afterPass([&] {
    ran += 'b';
    epoch.afterPass([&] { ran += 'd'; });
  });
  pass(epoch, 0);
  epoch.afterPass([&] { ran += 'c'; });
  epoch.runDue();
  CHECK(ran == "ab");
  pass(epoch, 0);
  epoch.runDue();
  CHECK(ran == "abcd");
}

TEST_CASE("what is retired lives until then") {
  Epoch epoch(1);
  const auto kept = std::make_shared<int>(7);
  epoch.retire(std::make_unique<std::shared_ptr<int>>(kept));
  CHECK(kept.use_count() == 2);
  epoch.runDue();
  CHECK(kept.use_count() == 2);
  pass(epoch, 0);
  epoch.runDue();
  CHECK(kept.use_count() == 1);
}

TEST_CASE("without pollers, and at the end, all tasks run") {
  Epoch none(0);
  bool ran = false;
  none.afterPass([&] { ran = true; });
  CHECK(readable(none.fd()));
  none.runDue();
  CHECK(ran);

  Epoch one(1);
  int runs = 0;
  one.afterPass([&] {
    ++runs;
    one.afterPass([&] { ++runs; });
  });
  one.runAll();
  CHECK(runs == 2);
}

TEST_CASE("no poller uses what has been replaced") {
  constexpr unsigned kPollers = 3;
  constexpr int kChanges = 2000;
  Epoch epoch(kPollers);
  struct Value {
    std::atomic<bool> gone{false};
  };
  std::vector<std::unique_ptr<Value>> all;
  all.push_back(std::make_unique<Value>());
  std::atomic<Value*> current{all.back().get()};
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> pollers;
  for (unsigned number = 0; number < kPollers; ++number)
    pollers.emplace_back([&, number] {
      while (!stop) {
        pollfd entry{epoch.wakeFd(number), POLLIN, 0};
        ::poll(&entry, 1, 10);
        epoch.drain(number);
        epoch.enter(number, [] {});
        const Value* value = current.load(std::memory_order_acquire);
        for (int i = 0; i < 10; ++i)
          if (value->gone) ++wrong;
      }
    });
  int passed = 0;
  for (int change = 0; change < kChanges; ++change) {
    all.push_back(std::make_unique<Value>());
    Value* old = current.exchange(all.back().get(), std::memory_order_acq_rel);
    epoch.afterPass([&, old] {
      old->gone = true;
      ++passed;
    });
    epoch.runDue();
  }
  while (passed < kChanges) {
    pollfd entry{epoch.fd(), POLLIN, 0};
    REQUIRE(::poll(&entry, 1, 10'000) == 1);  // a lost wake-up
    epoch.runDue();
  }
  stop = true;
  for (auto& poller : pollers) poller.join();
  CHECK(wrong == 0);
}
