#include "common/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "common/errors.h"

namespace vdpa {

EventLoop::EventLoop()
    : epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "cannot create an epoll instance")) {}

void EventLoop::watch(int fd, uint32_t events, Callback callback) {
  const Watch watch{nextGeneration_++, events, std::make_shared<Callback>(std::move(callback))};
  control(EPOLL_CTL_ADD, fd, watch);
  watches_[fd] = watch;
}

void EventLoop::change(int fd, uint32_t events) {
  Watch& watch = watches_.at(fd);
  if (watch.events == events) return;
  watch.events = events;
  control(EPOLL_CTL_MOD, fd, watch);
}

void EventLoop::forget(int fd) {
  if (watches_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

uint64_t EventLoop::after(std::chrono::milliseconds delay, std::function<void()> callback) {
  timers_.emplace(Clock::now() + delay, Timer{nextTimer_, std::move(callback)});
  return nextTimer_++;
}

void EventLoop::cancel(uint64_t timer) {
  std::erase_if(timers_, [timer](const auto& entry) { return entry.second.number == timer; });
}

void EventLoop::run() {
  running_ = true;
  while (running_) {
    epoll_event events[16];
    const int count = ::epoll_wait(epoll_.get(), events, 16, untilNextTimer());
    if (count < 0 && errno != EINTR) checked(count, "cannot wait for events");
    for (int i = 0; i < count && running_; ++i) {
      const int fd = static_cast<int>(events[i].data.u64 >> 32);
      const auto found = watches_.find(fd);
      if (found == watches_.end()) continue;
      if (found->second.generation != static_cast<uint32_t>(events[i].data.u64)) continue;
      const auto callback = found->second.callback;  // outlives a forget() from within
      (*callback)(events[i].events);
    }
    if (running_) runTimers();
  }
}

int EventLoop::untilNextTimer() const {
  if (timers_.empty()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3600 * 1000));
}

void EventLoop::runTimers() {
  const auto now = Clock::now();
  while (running_ && !timers_.empty() && timers_.begin()->first <= now) {
    const auto callback = std::move(timers_.begin()->second.callback);
    timers_.erase(timers_.begin());
    callback();
  }
}

void EventLoop::control(int operation, int fd, const Watch& watch) {
  epoll_event event{};
  event.events = watch.events;
  event.data.u64 = static_cast<uint64_t>(static_cast<uint32_t>(fd)) << 32 | watch.generation;
  checked(::epoll_ctl(epoll_.get(), operation, fd, &event), "cannot watch descriptor {}", fd);
}

}  // namespace vdpa
