// The events of one thread: descriptors, timers, and tasks that other threads post. Sleeps in
// epoll_wait (epoll(7)) when idle.
//
// A Watch or a Timer undoes itself when it is destroyed, even by its own callback: its owner needs
// no number to cancel it and no flag that it is running. Use both on the loop's own thread only, or
// on any thread while run() is not running. They must not outlive the loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "common/mutex.h"
#include "common/unique_fd.h"

namespace vdpa {

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;
  using Ready = std::function<void(uint32_t events)>;  // EPOLL* bits

  EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs `task` on the loop's thread, in the order of the calls. From any thread. Tasks posted
  // after run() has returned do not run.
  void post(Task task);
  // Runs until stop(). Throws what a callback throws.
  void run();
  void stop() { running_ = false; }

  // Calls `ready` whenever one of `events` is pending (level-triggered; EPOLLHUP and EPOLLERR
  // always count). Destroy it, or reset() it, before closing the descriptor.
  class Watch {
   public:
    Watch() = default;  // of nothing
    // Throws std::system_error.
    Watch(EventLoop& loop, int fd, uint32_t events, Ready ready);
    ~Watch() { reset(); }
    Watch(Watch&& other) noexcept;
    Watch& operator=(Watch&& other) noexcept;

    // Throws std::system_error.
    void change(uint32_t events);
    void reset();
    explicit operator bool() const { return loop_ != nullptr; }

   private:
    EventLoop* loop_ = nullptr;
    int fd_ = -1;
  };

  // Calls `task` once for each start.
  class Timer {
   public:
    Timer(EventLoop& loop, Task task);
    ~Timer() { cancel(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    // Due after `delay` from now; replaces an earlier start.
    void start(std::chrono::milliseconds delay);
    // Due after at most `delay` from now: an earlier due time stays.
    void startWithin(std::chrono::milliseconds delay);
    void cancel();
    bool pending() const { return pending_; }

   private:
    friend class EventLoop;
    EventLoop& loop_;
    const std::shared_ptr<const Task> task_;  // outlives the timer while it runs
    bool pending_ = false;
    std::multimap<Clock::time_point, Timer*>::iterator entry_;
  };

  // A member of an object on the loop's thread for which other threads post tasks.
  class Lifetime {
   public:
    explicit Lifetime(EventLoop& loop) : loop_(loop) {}
    Lifetime(const Lifetime&) = delete;
    Lifetime& operator=(const Lifetime&) = delete;

    // As post(), but drops tasks whose turn comes after the end of this Lifetime. The result may be
    // copied, used from any thread, and outlive the Lifetime, but not the loop.
    std::function<void(Task)> poster() const;

   private:
    EventLoop& loop_;
    const std::shared_ptr<char> alive_ = std::make_shared<char>();
  };

  // Held by a call that will finish on another thread and post from there.
  class Ticket {
   public:
    explicit Ticket(EventLoop& loop);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    EventLoop& loop_;
  };
  // Call after run(), before the loop is destroyed; cancel the calls first.
  void waitForTickets();

 private:
  struct Watched {
    uint32_t generation;  // so that an event of a closed descriptor never reaches its successor
    uint32_t events;
    std::shared_ptr<const Ready> ready;  // outlives the Watch while it runs
  };
  int untilNextTimer() const;
  void runTimers();
  void runPosted();
  void control(int operation, int fd, const Watched& watched);

  UniqueFd epoll_;
  std::unordered_map<int, Watched> watched_;
  std::multimap<Clock::time_point, Timer*> timers_;
  uint32_t nextGeneration_ = 1;
  bool running_ = false;
  UniqueFd wake_;
  Mutex mutex_;
  std::vector<Task> posted_ GUARDED_BY(mutex_);
  unsigned tickets_ GUARDED_BY(mutex_) = 0;
  Condition ticketReturned_;
  Watch wakeWatch_;
};

}  // namespace vdpa
