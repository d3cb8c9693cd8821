// Ends a poller's writes to eventfds that block.
//
// rte_vhost interrupts a pod by writing to an eventfd that the pod shares: the pod can make it
// blocking and fill it, and the write would wait for ever, and with it all ports of the poller. The
// guard interrupts such a write after kTimeout and makes the poller skip that connection.
//
// A timer signals the poller's thread while it is awake. The signal interrupts only a waiting
// write: an awake poller makes no other call that waits. eventfd_write(), which this file's .cc
// defines in place of libc's, recognises a pod's blocking eventfd by EINTR.
#pragma once

#include <signal.h>
#include <time.h>

#include <vector>

#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {

// Belongs to one poller; for its thread only.
class CallGuard {
 public:
  static constexpr int kTimeout = 50;  // ms that a write may wait

  explicit CallGuard(StalledCalls& stalled);
  ~CallGuard();
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;

  // Call first, on the poller's thread. Throws std::system_error.
  void begin();
  // Call before the poller serves ports. Makes a system call only after at least kTimeout of sleep.
  void wake();
  // Call before it sleeps: the timer then stops by itself.
  void rest() { awake_ = false; }

  // Call after each rte_vhost call that may have interrupted the pod of `vid`.
  void check(int vid) {
    if (interrupted_) [[unlikely]]
      leave(vid);
  }
  // Whether to skip the connection until the control side has dropped it.
  bool left(int vid) const;
  // Forgets handles that `snapshot` no longer has: rte_vhost may reuse them.
  void follow(const Snapshot& snapshot);

  // For eventfd_write(): a waiting write of this thread was interrupted.
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
  uint64_t sequence_ = 0;  // of the last snapshot followed
  std::vector<int> left_;
};

}  // namespace vdpa::vswitch
