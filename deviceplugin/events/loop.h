// The plugin's one thread of decisions: descriptors, timers and tasks that other threads post.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::plugin {

class Loop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;

  // Held by a call that another thread will finish and post from: waitForTickets() keeps the loop
  // alive for it.
  class Ticket {
   public:
    explicit Ticket(Loop& loop) : loop_(loop) {
      std::lock_guard lock(loop_.mutex_);
      ++loop_.tickets_;
    }
    ~Ticket() {
      std::lock_guard lock(loop_.mutex_);
      --loop_.tickets_;
      loop_.ticketReturned_.notify_all();
    }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    Loop& loop_;
  };

  Loop();

  // Runs `task` on the loop's thread. From any thread.
  void post(Task task);
  // The rest is for the loop's own thread.
  void runAfter(std::chrono::milliseconds delay, Task task);
  // Calls `ready` whenever `fd` is readable. The descriptor stays the caller's and must outlive the
  // loop.
  void watch(int fd, Task ready);
  void run();  // until stop()
  void stop() { stopped_ = true; }
  // After run(), before the loop's end: the calls should have been cancelled.
  void waitForTickets();

 private:
  int timeout() const;
  void runTimers();
  void runPosted();

  UniqueFd wake_;
  std::map<int, Task> watched_;
  std::multimap<Clock::time_point, Task> timers_;
  std::mutex mutex_;
  std::vector<Task> posted_;
  unsigned tickets_ = 0;
  std::condition_variable ticketReturned_;
  bool stopped_ = false;
};

}  // namespace vdpa::plugin
