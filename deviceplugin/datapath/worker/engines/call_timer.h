// A pod can make some calls on its descriptors wait: the last close() of a lingering socket, also
// of one in the queue of another, and a write to an eventfd that it fills and makes blocking at the
// same moment. While a CallTimer exists, a signal soon interrupts such a call; its work is then
// done, or can't be.
#pragma once

#include <signal.h>
#include <sys/time.h>

namespace vdpa::worker {

// Not for calls that must not be interrupted, such as the kernel's work on a device. One at a time.
class CallTimer {
 public:
  CallTimer() {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // only has to interrupt
    action.sa_flags = 0;             // no SA_RESTART
    ::sigaction(SIGALRM, &action, nullptr);
    set(kTimeout);
  }
  ~CallTimer() { set(0); }
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

 private:
  static constexpr int kTimeout = 50'000;  // microseconds

  // Repeats: the first signal may come before the call that waits.
  static void set(int microseconds) {
    const itimerval time{{0, microseconds}, {0, microseconds}};
    ::setitimer(ITIMER_REAL, &time, nullptr);
  }
};

}  // namespace vdpa::worker
