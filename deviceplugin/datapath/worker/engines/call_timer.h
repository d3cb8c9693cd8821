// A pod decides how long some calls on what it has handed over may wait: the last close() of a
// socket that lingers, also of one in the queue of another, and a write to an eventfd that it fills
// and makes a blocking one at the same moment. While one of these exists a signal interrupts such a
// call after a moment; its work is then done, or can't be.
#pragma once

#include <signal.h>
#include <sys/time.h>

namespace vdpa::worker {

// Not around calls that must not be interrupted, such as the kernel's work on a device. One at a
// time.
class CallTimer {
 public:
  CallTimer() {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // being a signal is all it is for
    action.sa_flags = 0;             // and not SA_RESTART
    ::sigaction(SIGALRM, &action, nullptr);
    set(kTimeout);
  }
  ~CallTimer() { set(0); }
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

 private:
  static constexpr int kTimeout = 50'000;  // microseconds

  // Again and again: the first may come before the call that waits.
  static void set(int microseconds) {
    const itimerval time{{0, microseconds}, {0, microseconds}};
    ::setitimer(ITIMER_REAL, &time, nullptr);
  }
};

}  // namespace vdpa::worker
