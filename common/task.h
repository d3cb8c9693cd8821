// Coroutines on an EventLoop, for operations of several steps with waits in between: the code reads
// like a thread's but needs no thread. A Task begins when it is awaited, or when a Job is made of
// it, and runs on the loop's thread. Use all of this only on that thread.
//
// Destruction cancels: a Job destroys its Task with everything that the Task awaits, whose timers
// and watches undo themselves. A Job must not be destroyed by its own Task.
//
//   Task<void> Supervisor::run() {
//     for (;;) {
//       if (!co_await up(kStartTime)) co_return;
//       co_await sleepFor(loop_, 5s);
//     }
//   }
//   Job job_{run()};
#pragma once

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <exception>
#include <list>
#include <optional>
#include <utility>

#include "common/event_loop.h"

namespace vdpa {

template <typename T>
class Task;

namespace detail {

struct PromiseBase {
  std::coroutine_handle<> continuation;  // the awaiting coroutine; none: a Job's
  std::exception_ptr error;

  struct Final {
    bool await_ready() const noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) const noexcept {
      const auto next = self.promise().continuation;
      return next ? next : std::noop_coroutine();
    }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  Final final_suspend() const noexcept { return {}; }
  // A Job's exception leaves the loop's run(), like a callback's.
  void unhandled_exception() {
    if (!continuation) throw;
    error = std::current_exception();
  }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object();
  void return_value(T result) { value.emplace(std::move(result)); }
  T result() {
    if (error) std::rethrow_exception(error);
    return std::move(*value);
  }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object();
  void return_void() const {}
  void result() const {
    if (error) std::rethrow_exception(error);
  }
};

}  // namespace detail

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) const noexcept {
    handle_.promise().continuation = awaiting;
    return handle_;
  }
  T await_resume() const { return handle_.promise().result(); }

 private:
  friend class Job;
  Handle handle_;
};

namespace detail {

template <typename T>
Task<T> Promise<T>::get_return_object() {
  return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() {
  return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

}  // namespace detail

// A Task that runs without being awaited.
class Job {
 public:
  Job() = default;
  explicit Job(Task<void> task) : task_(std::move(task)) { task_->handle_.resume(); }
  bool done() const { return !task_ || task_->handle_.done(); }
  void cancel() { task_.reset(); }

 private:
  std::optional<Task<void>> task_;
};

// co_await sleepFor(loop, 5s)
class [[nodiscard]] sleepFor {
 public:
  sleepFor(EventLoop& loop, std::chrono::milliseconds delay)
      : delay_(delay), timer_(loop, [this] { awaiting_.resume(); }) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> awaiting) {
    awaiting_ = awaiting;
    timer_.start(delay_);
  }
  void await_resume() const noexcept {}

 private:
  const std::chrono::milliseconds delay_;
  EventLoop::Timer timer_;
  std::coroutine_handle<> awaiting_;
};

// A condition variable on the loop: the waiting coroutine tests its condition in a loop.
//
//   while (!ready_ && co_await changed_.waitUntil(deadline)) {
//   }
class Notification {
 public:
  explicit Notification(EventLoop& loop) : loop_(loop) {}
  Notification(const Notification&) = delete;
  Notification& operator=(const Notification&) = delete;

  class [[nodiscard]] Wait {
   public:
    Wait(Notification& owner, std::optional<std::chrono::milliseconds> time)
        : owner_(owner), time_(time), timer_(owner.loop_, [this] {
            leave();
            awaiting_.resume();
          }) {}
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait() { leave(); }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) {
      awaiting_ = awaiting;
      place_ = owner_.waiting_.insert(owner_.waiting_.end(), this);
      if (time_) timer_.start(*time_);
    }
    // False after the timeout.
    bool await_resume() const noexcept { return notified_; }

   private:
    friend class Notification;
    void leave() {
      if (place_) owner_.waiting_.erase(*std::exchange(place_, std::nullopt));
    }
    void notify() {
      notified_ = true;
      timer_.start(std::chrono::milliseconds(0));
    }

    Notification& owner_;
    const std::optional<std::chrono::milliseconds> time_;
    EventLoop::Timer timer_;
    std::coroutine_handle<> awaiting_;
    std::optional<std::list<Wait*>::iterator> place_;
    bool notified_ = false;
  };

  Wait wait() { return Wait(*this, std::nullopt); }
  Wait waitFor(std::chrono::milliseconds time) { return Wait(*this, time); }
  Wait waitUntil(EventLoop::Clock::time_point deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - EventLoop::Clock::now());
    return Wait(*this, std::max(left, std::chrono::milliseconds(0)));
  }
  // The current waiters resume from the loop, after the caller.
  void notify() {
    for (Wait* wait : waiting_) wait->notify();
  }

 private:
  EventLoop& loop_;
  std::list<Wait*> waiting_;
};

}  // namespace vdpa
