// Calls the control thread back once every poller has begun a pass since a change. From then on no
// poller uses the objects that the change removed: they can be freed, and a stopped ring's position
// can be read. Neither side waits for the other.
//
// A change is: store the new pointer (or queue a poller's change), then afterPass(). A poller looks
// at shared pointers only within a pass, and keeps none from one pass to the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::vswitch {

class Epoch {
 public:
  explicit Epoch(unsigned pollers);

  // --- pollers
  // Call at the beginning of each pass, after draining wakeFd() and before reading any shared
  // pointer. `follow` is called if something changed: it applies the poller's queued changes.
  template <typename Follow>
  void enter(unsigned poller, const Follow& follow) {
    const uint64_t now = current_.load(std::memory_order_acquire);
    if (now == cells_[poller].seen.load(std::memory_order_relaxed)) [[likely]]
      return;
    follow();
    announce(poller, now);
  }
  // Readable after each change: ends a poller's sleep.
  int wakeFd(unsigned poller) const { return cells_[poller].wake.get(); }
  void drain(unsigned poller);

  // --- the control thread
  // Runs `task` in runDue(), once each poller has begun a pass since this call. Tasks run in the
  // order of the calls.
  void afterPass(std::function<void()> task);
  // Keeps `object` alive until then.
  template <typename Object>
  void retire(Object object) {
    afterPass([kept = std::make_shared<Object>(std::move(object))] {});
  }
  // Readable when runDue() may have something to do.
  int fd() const { return passed_.get(); }
  void runDue();
  // Runs all tasks: for the end, when no poller runs any more.
  void runAll();

 private:
  struct alignas(64) Cell {
    std::atomic<uint64_t> seen{0};
    UniqueFd wake;
  };
  struct Task {
    uint64_t due;
    std::function<void()> run;
  };
  void announce(unsigned poller, uint64_t now);
  uint64_t oldestSeen() const;

  std::vector<Cell> cells_;
  alignas(64) std::atomic<uint64_t> current_{0};
  UniqueFd passed_;
  std::deque<Task> tasks_;
};

}  // namespace vdpa::vswitch
