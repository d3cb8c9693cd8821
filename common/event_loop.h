// The worker's only thread: descriptors and timers, asleep in epoll_wait when there is nothing to
// do.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "common/unique_fd.h"

namespace vdpa {

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Callback = std::function<void(uint32_t events)>;

  EventLoop();

  // Calls back with EPOLL* bits whenever one of `events` is there (level-triggered; EPOLLHUP and
  // EPOLLERR always count). The callback may forget its own descriptor. `fd` must be forgotten
  // before it is closed. Throws std::system_error.
  void watch(int fd, uint32_t events, Callback callback);
  void change(int fd, uint32_t events);
  void forget(int fd);

  // Calls back once, after the delay. Returns a number for cancel(), never 0.
  uint64_t after(std::chrono::milliseconds delay, std::function<void()> callback);
  void cancel(uint64_t timer);

  // Until stop(). What a callback throws comes out here.
  void run();
  void stop() { running_ = false; }

 private:
  struct Watch {
    uint32_t generation;  // so that an event of a closed descriptor never meets its successor
    uint32_t events;
    std::shared_ptr<Callback> callback;
  };
  struct Timer {
    uint64_t number;
    std::function<void()> callback;
  };
  int untilNextTimer() const;
  void runTimers();
  void control(int operation, int fd, const Watch& watch);

  UniqueFd epoll_;
  std::unordered_map<int, Watch> watches_;
  std::multimap<Clock::time_point, Timer> timers_;
  uint32_t nextGeneration_ = 1;
  uint64_t nextTimer_ = 1;
  bool running_ = false;
};

}  // namespace vdpa
