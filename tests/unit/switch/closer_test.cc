#include "deviceplugin/datapath/switch/ports/closer.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <utility>

namespace {

using namespace vdpa::vswitch;
using namespace std::chrono_literals;

// Something whose end takes until `go`.
struct Slow {
  std::shared_future<void> go;
  std::shared_ptr<std::atomic<int>> ended;

  Slow(std::shared_future<void> until, std::shared_ptr<std::atomic<int>> count)
      : go(std::move(until)), ended(std::move(count)) {}
  Slow(Slow&&) = default;
  Slow& operator=(Slow&&) = default;
  ~Slow() {
    if (!ended) return;  // moved
    go.wait();
    ++*ended;
  }
};

template <typename Condition>
bool soon(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!condition() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(1ms);
  return condition();
}

}  // namespace

TEST_CASE("what is slow to end delays neither the caller nor another port's") {
  std::promise<void> go, gone;
  gone.set_value();
  const auto slow = std::make_shared<std::atomic<int>>(),
             quick = std::make_shared<std::atomic<int>>();
  const auto until = go.get_future().share(), now = gone.get_future().share();
  Closer closer;
  closer.take(1, Slow(until, slow));
  closer.take(1, Slow(now, slow));
  closer.take(2, Slow(now, quick));
  CHECK(soon([&] { return *quick == 1 && closer.waiting(2) == 0; }));
  CHECK(*slow == 0);
  CHECK(closer.waiting(1) == 2);
  go.set_value();
  CHECK(soon([&] { return *slow == 2 && closer.waiting(1) == 0; }));
}

TEST_CASE("its end waits for what takes no longer than usual, and leaves the rest") {
  const auto count = std::make_shared<std::atomic<int>>();
  const auto used = std::make_shared<int>(1);
  std::promise<void> go, gone;
  gone.set_value();
  {
    Closer closer(used);
    closer.take(1, Slow(gone.get_future().share(), count));
  }
  CHECK(*count == 1);
  {
    Closer closer(used);
    closer.take(1, Slow(go.get_future().share(), count));
  }
  CHECK(*count == 1);
  CHECK(used.use_count() == 2);
  go.set_value();
  CHECK(soon([&] { return *count == 2 && used.use_count() == 1; }));
}
