#include "deviceplugin/events/loop.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "common/errors.h"

namespace vdpa::plugin {

Loop::Loop()
    : wake_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")) {}

void Loop::post(Task task) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  ::eventfd_write(wake_.get(), 1);
}

void Loop::runAfter(std::chrono::milliseconds delay, Task task) {
  timers_.emplace(Clock::now() + delay, std::move(task));
}

void Loop::watch(int fd, Task ready) {
  watched_[fd] = std::move(ready);
}

int Loop::timeout() const {
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first - Clock::now();
  return static_cast<int>(
      std::max<int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
}

void Loop::runTimers() {
  while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
    const Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
}

void Loop::runPosted() {
  eventfd_t ignored;
  ::eventfd_read(wake_.get(), &ignored);
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks) task();
}

void Loop::waitForTickets() {
  std::unique_lock lock(mutex_);
  ticketReturned_.wait(lock, [this] { return tickets_ == 0; });
}

void Loop::run() {
  while (!stopped_) {
    std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}};
    for (const auto& [fd, task] : watched_) fds.push_back({fd, POLLIN, 0});
    if (::poll(fds.data(), fds.size(), timeout()) < 0 && errno != EINTR)
      throw systemError(errno, "cannot poll");
    runTimers();
    for (size_t i = 1; i < fds.size(); ++i)
      if (fds[i].revents != 0) watched_.at(fds[i].fd)();
    runPosted();
  }
}

}  // namespace vdpa::plugin
