// A thread that runs an EventLoop, on which other threads can run code.
#pragma once

#include <exception>
#include <future>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "common/event_loop.h"
#include "common/task.h"

namespace vdpa {

class EventThread {
 public:
  EventThread() : thread_([this] { loop_.run(); }) {}
  // Everything that runs on it must have been destroyed before, through run().
  ~EventThread() {
    loop_.post([this] { loop_.stop(); });
    thread_.join();
  }
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  EventLoop& loop() { return loop_; }
  bool isCurrent() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Runs `action` on this thread (at once if called on it) and returns or throws its result.
  template <typename Action>
  auto run(Action action) -> std::invoke_result_t<Action> {
    if (isCurrent()) return action();
    std::packaged_task<std::invoke_result_t<Action>()> task(std::move(action));
    auto result = task.get_future();
    loop_.post([&task] { task(); });
    return result.get();
  }

  // Awaits `task` on this thread and returns or throws its result. Must not be called on it.
  template <typename T>
  T wait(Task<T> task) {
    std::promise<T> promise;
    auto result = promise.get_future();
    std::optional<Job> job;
    run([&] { job.emplace(keep(std::move(task), promise)); });
    result.wait();
    run([&] { job.reset(); });
    return result.get();
  }

 private:
  template <typename T>
  static Task<void> keep(Task<T> task, std::promise<T>& promise) {
    try {
      if constexpr (std::is_void_v<T>) {
        co_await task;
        promise.set_value();
      } else {
        auto value = co_await task;
        promise.set_value(std::move(value));
      }
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }

  EventLoop loop_;
  std::thread thread_;
};

}  // namespace vdpa
