// The plugin's one thread of decisions: descriptors, timers and tasks that other threads post.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa {

class Loop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;

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

 private:
  int timeout() const;
  void runTimers();
  void runPosted();

  UniqueFd wake_;
  std::map<int, Task> watched_;
  std::multimap<Clock::time_point, Task> timers_;
  std::mutex mutex_;
  std::vector<Task> posted_;
  bool stopped_ = false;
};

}  // namespace vdpa
