// A lock between pollers, which hold it for a few dozen loads and stores.
#pragma once

#include <atomic>

#include "common/mutex.h"

namespace vdpa::vswitch {

class CAPABILITY("mutex") SpinLock {
 public:
  void lock() ACQUIRE() {
    while (held_.exchange(true, std::memory_order_acquire))
      while (held_.load(std::memory_order_relaxed)) __builtin_ia32_pause();
  }
  // False: somebody has held it through so many looks at it, of 5 to 50 ns each.
  // Not analysed, as its caller, who may have no lock.
  bool tryLock(unsigned looks) NO_THREAD_SAFETY_ANALYSIS {
    while (held_.exchange(true, std::memory_order_acquire)) {
      do {
        if (looks-- == 0) return false;
        __builtin_ia32_pause();
      } while (held_.load(std::memory_order_relaxed));
    }
    return true;
  }
  void unlock() RELEASE() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace vdpa::vswitch
