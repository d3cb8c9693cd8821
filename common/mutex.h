// std::mutex and std::condition_variable with annotations for clang's thread safety analysis
// (-Wthread-safety; https://clang.llvm.org/docs/ThreadSafetyAnalysis.html): a member names the
// mutex that guards it, a function the mutex that its caller must hold, and clang refuses
// violations. Other compilers see the standard types.
//
//   Mutex mutex_;
//   std::map<std::string, Port> ports_ GUARDED_BY(mutex_);
//   Port& find(const std::string& id) REQUIRES(mutex_);
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#ifdef __clang__
#define VDPA_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define VDPA_THREAD_ANNOTATION(x)
#endif

// Abseil, which comes with gRPC's headers, has two of these names, for the same.
#undef GUARDED_BY
#undef NO_THREAD_SAFETY_ANALYSIS

#define CAPABILITY(name) VDPA_THREAD_ANNOTATION(capability(name))
#define SCOPED_CAPABILITY VDPA_THREAD_ANNOTATION(scoped_lockable)
#define GUARDED_BY(mutex) VDPA_THREAD_ANNOTATION(guarded_by(mutex))
#define REQUIRES(...) VDPA_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) VDPA_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) VDPA_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) VDPA_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define RETURN_CAPABILITY(mutex) VDPA_THREAD_ANNOTATION(lock_returned(mutex))
// Use only with a comment that gives the reason.
#define NO_THREAD_SAFETY_ANALYSIS VDPA_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace vdpa {

class CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

// Holds a mutex until the end of its block.
class SCOPED_CAPABILITY Lock {
 public:
  explicit Lock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Lock() RELEASE() { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

// The caller tests its condition in a loop, where the analysis sees it:
//
//   Lock lock(mutex_);
//   while (!ready_)
//     if (!changed_.waitUntil(mutex_, deadline)) break;
class Condition {
 public:
  using Clock = std::chrono::steady_clock;

  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock held(mutex.mutex_, std::adopt_lock);
    condition_.wait(held);
    held.release();  // the caller's Lock stays in force
  }
  // False at the deadline.
  bool waitUntil(Mutex& mutex, Clock::time_point deadline) REQUIRES(mutex) {
    std::unique_lock held(mutex.mutex_, std::adopt_lock);
    const bool before = condition_.wait_until(held, deadline) == std::cv_status::no_timeout;
    held.release();
    return before;
  }
  void notifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace vdpa
