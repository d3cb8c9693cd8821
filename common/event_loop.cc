#include "common/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/mutex.h"

namespace vdpa {

EventLoop::EventLoop()
    : epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "cannot create an epoll instance")),
      wake_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")),
      wakeWatch_(*this, wake_.get(), EPOLLIN, [this](uint32_t) { runPosted(); }) {}

void EventLoop::post(Task task) {
  {
    Lock lock(mutex_);
    posted_.push_back(std::move(task));
  }
  ::eventfd_write(wake_.get(), 1);
}

void EventLoop::runPosted() {
  eventfd_t ignored;
  ::eventfd_read(wake_.get(), &ignored);
  std::vector<Task> tasks;
  {
    Lock lock(mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks)
    if (running_) task();
}

void EventLoop::run() {
  running_ = true;
  while (running_) {
    epoll_event events[16];
    const int count = ::epoll_wait(epoll_.get(), events, 16, untilNextTimer());
    if (count < 0 && errno != EINTR) checked(count, "cannot wait for events");
    for (int i = 0; i < count && running_; ++i) {
      const int fd = static_cast<int>(events[i].data.u64 >> 32);
      const auto found = watched_.find(fd);
      if (found == watched_.end()) continue;
      if (found->second.generation != static_cast<uint32_t>(events[i].data.u64)) continue;
      const auto ready = found->second.ready;
      (*ready)(events[i].events);
    }
    runTimers();
  }
}

int EventLoop::untilNextTimer() const {
  if (timers_.empty()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3600 * 1000));
}

// Timers started meanwhile run after the next wait, so that a chain of timers can't starve
// descriptors.
void EventLoop::runTimers() {
  const auto now = Clock::now();
  while (running_ && !timers_.empty() && timers_.begin()->first <= now) {
    Timer& timer = *timers_.begin()->second;
    const auto task = timer.task_;
    timer.cancel();
    (*task)();
  }
}

void EventLoop::control(int operation, int fd, const Watched& watched) {
  epoll_event event{};
  event.events = watched.events;
  event.data.u64 = static_cast<uint64_t>(static_cast<uint32_t>(fd)) << 32 | watched.generation;
  checked(::epoll_ctl(epoll_.get(), operation, fd, &event), "cannot watch descriptor {}", fd);
}

EventLoop::Watch::Watch(EventLoop& loop, int fd, uint32_t events, Ready ready) {
  const Watched watched{loop.nextGeneration_++, events,
                        std::make_shared<const Ready>(std::move(ready))};
  loop.control(EPOLL_CTL_ADD, fd, watched);
  loop.watched_[fd] = watched;
  loop_ = &loop;
  fd_ = fd;
}

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), fd_(other.fd_) {}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    fd_ = other.fd_;
  }
  return *this;
}

void EventLoop::Watch::change(uint32_t events) {
  Watched& watched = loop_->watched_.at(fd_);
  if (std::exchange(watched.events, events) != events) loop_->control(EPOLL_CTL_MOD, fd_, watched);
}

void EventLoop::Watch::reset() {
  if (!loop_) return;
  loop_->watched_.erase(fd_);
  ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
  loop_ = nullptr;
}

EventLoop::Timer::Timer(EventLoop& loop, Task task)
    : loop_(loop), task_(std::make_shared<const Task>(std::move(task))) {}

void EventLoop::Timer::start(std::chrono::milliseconds delay) {
  cancel();
  entry_ = loop_.timers_.emplace(Clock::now() + delay, this);
  pending_ = true;
}

void EventLoop::Timer::startWithin(std::chrono::milliseconds delay) {
  if (!pending_ || entry_->first > Clock::now() + delay) start(delay);
}

void EventLoop::Timer::cancel() {
  if (std::exchange(pending_, false)) loop_.timers_.erase(entry_);
}

std::function<void(EventLoop::Task)> EventLoop::Lifetime::poster() const {
  return [&loop = loop_, alive = std::weak_ptr(alive_)](Task task) {
    loop.post([alive, task = std::move(task)] {
      if (alive.lock()) task();
    });
  };
}

EventLoop::Ticket::Ticket(EventLoop& loop) : loop_(loop) {
  Lock lock(loop_.mutex_);
  ++loop_.tickets_;
}

EventLoop::Ticket::~Ticket() {
  Lock lock(loop_.mutex_);
  --loop_.tickets_;
  loop_.ticketReturned_.notifyAll();
}

void EventLoop::waitForTickets() {
  Lock lock(mutex_);
  while (tickets_ != 0) ticketReturned_.wait(mutex_);
}

}  // namespace vdpa
