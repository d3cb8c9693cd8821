// rte_vhost interrupts a pod by writing to an eventfd that the pod owns as well: the pod can make
// it a blocking one and fill it, and the write would wait for ever, with all the ports of the
// poller. The guard ends such a write after a moment and has the poller leave that connection
// alone.
//
// A timer signals the poller's thread while it is awake. A signal interrupts a write that waits and
// nothing else: no other call of a poller that is awake waits, and eventfd_write(), which
// this file's .cc defines in place of libc's, sees by EINTR that it was a pod's that did.
#pragma once

#include <signal.h>
#include <time.h>

#include <vector>

#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {

// Of one poller, used on its thread.
class CallGuard {
 public:
  static constexpr int kTimeout = 50;  // ms; a write may wait for so long

  explicit CallGuard(StalledCalls& stalled);
  ~CallGuard();
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;

  // First of all, on the poller's thread. Throws std::system_error.
  void begin();
  // Before the poller serves ports. Costs a system call only after a rest of at least kTimeout.
  void wake();
  // Before it sleeps: the timer then ends by itself.
  void rest() { awake_ = false; }

  // After each rte_vhost call that may have interrupted the pod of `vid`.
  void check(int vid) {
    if (interrupted_) [[unlikely]]
      leave(vid);
  }
  // Whether the connection is to be left alone until the control side has dropped it.
  bool left(int vid) const;
  // Handles that `snapshot` no longer has may come back as others'.
  void follow(const Snapshot& snapshot);

  // For eventfd_write(): a write of this thread was interrupted while it waited.
  static void noteInterrupted();

 private:
  void leave(int vid);
  void setTimer(int milliseconds);
  static void onTick(int signal, siginfo_t* info, void* context);

  StalledCalls& stalled_;
  timer_t timer_{};
  bool begun_ = false;
  volatile sig_atomic_t awake_ = false, ticking_ = false;  // shared with onTick()
  bool interrupted_ = false;
  uint64_t sequence_ = 0;  // the snapshot followed last
  std::vector<int> left_;
};

}  // namespace vdpa::vswitch
