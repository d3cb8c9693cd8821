#include "deviceplugin/datapath/switch/call_guard.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/errors.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {
namespace {

// The only context that eventfd_write() has is its thread.
thread_local CallGuard* guardOfThread = nullptr;

int tickSignal() {
  return SIGRTMIN;
}

}  // namespace

CallGuard::CallGuard(StalledCalls& stalled) : stalled_(stalled) {
  left_.reserve(MacTable::kMaxPorts);  // no allocation later
}

CallGuard::~CallGuard() {
  if (begun_) ::timer_delete(timer_);
  if (guardOfThread == this) guardOfThread = nullptr;
}

void CallGuard::begin() {
  struct sigaction action {};
  action.sa_sigaction = onTick;
  action.sa_flags = SA_SIGINFO;  // without SA_RESTART
  checked(::sigaction(tickSignal(), &action, nullptr), "cannot handle the guard's signal");
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = tickSignal();
  event.sigev_value.sival_ptr = this;
  event._sigev_un._tid = ::gettid();  // this glibc has no sigev_notify_thread_id
  checked(::timer_create(CLOCK_MONOTONIC, &event, &timer_), "cannot create the guard's timer");
  begun_ = true;
  guardOfThread = this;
  wake();
}

void CallGuard::setTimer(int milliseconds) {
  itimerspec time{};
  time.it_interval.tv_nsec = time.it_value.tv_nsec = milliseconds * 1000000L;
  ::timer_settime(timer_, 0, &time, nullptr);
}

void CallGuard::wake() {
  awake_ = true;
  if (ticking_) return;
  ticking_ = true;
  setTimer(kTimeout);
}

void CallGuard::onTick(int, siginfo_t* info, void*) {
  auto& guard = *static_cast<CallGuard*>(info->si_value.sival_ptr);
  if (guard.awake_) return;  // interrupting the write was its only purpose
  const int error = errno;
  guard.setTimer(0);
  guard.ticking_ = false;
  errno = error;
}

void CallGuard::noteInterrupted() {
  if (guardOfThread) guardOfThread->interrupted_ = true;
}

void CallGuard::leave(int vid) {
  interrupted_ = false;
  if (left(vid)) return;
  left_.push_back(vid);
  stalled_.report(vid);
}

bool CallGuard::left(int vid) const {
  return !left_.empty() && std::find(left_.begin(), left_.end(), vid) != left_.end();
}

void CallGuard::follow(const Snapshot& snapshot) {
  if (snapshot.sequence == sequence_) return;
  sequence_ = snapshot.sequence;
  std::erase_if(left_, [&](int vid) {
    return std::none_of(snapshot.ports.begin(), snapshot.ports.end(),
                        [vid](const PortView& port) { return port.exists && port.vid == vid; });
  });
}

}  // namespace vdpa::vswitch

// Replaces libc's in the whole program, including rte_vhost.
extern "C" int eventfd_write(int fd, eventfd_t value) {
  if (::write(fd, &value, sizeof value) == static_cast<ssize_t>(sizeof value)) return 0;
  if (errno == EINTR) vdpa::vswitch::CallGuard::noteInterrupted();
  return -1;
}
