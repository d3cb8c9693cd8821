#include "deviceplugin/datapath/switch/forwarding/notifier.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"

namespace vdpa::vswitch {
namespace {

// A write that wakes a sleeping thread takes a few microseconds, in a virtual machine some more. So
// much is what its frames cost a sender, who pays for it.
constexpr uint64_t kUsualPerSecond = 100000;  // 10 us
// Beyond that, notifications get a twentieth of the time.
constexpr uint64_t kDelay = 20;
// But one waits at most this many times as long for others' as for its port's own: a cheap one must
// not wait behind dear ones.
constexpr uint64_t kMostSharers = 256;
// Of the mean. An interrupt, or a hypervisor, takes the time of a single one.
constexpr uint64_t kWeight = 8;

int tickSignal() {
  return SIGRTMIN;
}

}  // namespace

Notifier::Notifier(Offences& offences, FairShare& share, CpuTime& cpu, uint64_t hz)
    : offences_(offences),
      share_(share),
      cpu_(cpu),
      usual_(hz / kUsualPerSecond),
      longest_(hz / 1000 * kTimeout),
      late_(MacTable::kMaxPorts) {
  waiting_.reserve(MacTable::kMaxPorts);
}

Notifier::~Notifier() {
  if (begun_) ::timer_delete(timer_);
}

void Notifier::begin() {
  struct sigaction action {};
  action.sa_sigaction = onTick;
  action.sa_flags = SA_SIGINFO;  // without SA_RESTART
  checked(::sigaction(tickSignal(), &action, nullptr),
          "cannot handle the signal that ends writes to pods' eventfds");
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = tickSignal();
  event.sigev_value.sival_ptr = this;
  event._sigev_un._tid = ::gettid();  // this glibc has no sigev_notify_thread_id
  checked(::timer_create(CLOCK_MONOTONIC, &event, &timer_),
          "cannot create the timer that ends writes to pods' eventfds");
  begun_ = true;
  wake();
}

void Notifier::setTimer(int milliseconds) {
  itimerspec time{};
  time.it_interval.tv_nsec = time.it_value.tv_nsec = milliseconds * 1000000L;
  ::timer_settime(timer_, 0, &time, nullptr);
}

void Notifier::wake() {
  awake_ = true;
  if (ticking_ || !begun_) return;
  ticking_ = true;
  setTimer(kTimeout);
}

void Notifier::onTick(int, siginfo_t* info, void*) {
  auto& notifier = *static_cast<Notifier*>(info->si_value.sival_ptr);
  if (notifier.awake_) return;  // interrupting the write was its only purpose
  const int error = errno;
  notifier.setTimer(0);
  notifier.ticking_ = false;
  errno = error;
}

void Notifier::notify(Queue& queue) {
  if (queue.call < 0 || queue.broken.load(std::memory_order_relaxed)) return;
  const uint64_t before = cycles();
  const MacTable::Port port = queue.port->number;
  Late& late = late_[port];
  if (late.due > before) [[unlikely]] {
    if (late.queues == 0) waiting_.push_back(port);
    late.queues |= 1u << queue.index % 32;
    return;
  }
  if (!write(queue)) return;
  const uint64_t now = cycles();
  if (now - before > usual_) [[unlikely]]
    price(queue, now - before, now);
  else
    late.mean = late.mean - late.mean / kWeight + (now - before) / kWeight;
}

// False: it has blocked.
bool Notifier::write(Queue& queue) {
  const uint64_t one = 1;
  // A full eventfd that doesn't block has notified its pod already.
  if (::write(queue.call, &one, sizeof one) == sizeof one || errno != EINTR) return true;
  blame(queue);
  return false;
}

void Notifier::blame(Queue& queue) {
  queue.broken = true;
  offender_ = queue.port->number;
  offences_.report(queue.port->number, Offence::kCallBlocks);
}

void Notifier::price(Queue& queue, uint64_t took, uint64_t now) {
  const uint64_t used = cpu_.used(took, now);
  if (used >= longest_) blame(queue);
  const MacTable::Port port = queue.port->number;
  Late& late = late_[port];
  late.mean = late.mean - late.mean / kWeight + used / kWeight;
  if (used <= usual_) return;
  const uint64_t excess = used - usual_;
  share_.charge(port, excess);
  excess_ += excess;
  if (late.mean <= usual_) return;
  const uint64_t delay = kDelay * excess;
  sharedDue_ = std::max(sharedDue_, now) + delay;
  late.due = std::min(sharedDue_, now + kMostSharers * delay);
}

void Notifier::forget(MacTable::Port port) {
  late_[port] = {};
  std::erase(waiting_, port);
}

uint64_t Notifier::due() const {
  uint64_t due = kNever;
  for (const MacTable::Port port : waiting_) due = std::min(due, late_[port].due);
  return due;
}

}  // namespace vdpa::vswitch
