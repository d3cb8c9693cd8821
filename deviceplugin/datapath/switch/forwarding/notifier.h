// Notifies pods of what is in their rings, by the eventfds that they share. A pod can make such a
// write expensive for the poller, and with it for all its ports:
//
// - With a million watchers on it, a write takes 97 ms. Writes are timed. What one takes beyond the
//   usual is charged to the pod. If its writes take longer than the usual in the mean, its next
//   notifications wait until twenty times as much time has passed, which all such pods share; they
//   are then made at once, and none is lost. A write that takes kTimeout is an offence.
// - The pod can make it blocking and fill it: the write would wait for ever. A timer signals the
//   poller's thread while it is awake, which interrupts only a waiting write: an awake poller makes
//   no other call that waits. The pod is reported, and its connection left alone.
#pragma once

#include <signal.h>
#include <time.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only, but for the constructor. Times are in cycles.
class Notifier {
 public:
  static constexpr int kTimeout = 50;  // ms that a write may wait, or take
  static constexpr uint64_t kNever = UINT64_MAX;

  Notifier(Offences& offences, FairShare& share, CpuTime& cpu, uint64_t hz);
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  // Call first, on the poller's thread. Throws std::system_error; writes could then wait for ever.
  void begin();
  // Call before the poller serves ports. Makes a system call only after at least kTimeout of sleep.
  void wake();
  // Call before it sleeps: the timer then stops by itself.
  void rest() { awake_ = false; }

  // Now or later.
  void notify(Queue& queue);
  // The time of notifications since the last call that must not be charged to the sender.
  uint64_t takeExcess() { return std::exchange(excess_, 0); }
  // The port whose eventfd has blocked since the last call, or kNoPort. The queue that it belongs
  // to is broken already. To be taken in the same pass: the number may be another port's in the
  // next.
  MacTable::Port takeOffender() { return std::exchange(offender_, MacTable::kNoPort); }

  // The port is gone: the next one with its number has done nothing.
  void forget(MacTable::Port port);

  // The poller's.
  CpuTime& cpuTime() { return cpu_; }

  // When the next late notification is due.
  uint64_t due() const;
  // Makes those of one port that are due: the others' frames are not to wait for more.
  // `find(port number, virtqueue's number)` returns the queue, or null: it is gone.
  template <typename Find>
  void notifyLate(uint64_t now, const Find& find) {
    for (MacTable::Port& waiting : waiting_) {
      const MacTable::Port port = waiting;
      Late& late = late_[port];
      if (late.due > now) continue;
      waiting = waiting_.back();
      waiting_.pop_back();
      for (uint32_t queues = std::exchange(late.queues, 0); queues != 0; queues &= queues - 1)
        if (Queue* queue = find(port, static_cast<uint16_t>(__builtin_ctz(queues)))) notify(*queue);
      return;
    }
  }

 private:
  struct Late {
    uint64_t due = 0;     // no notification of the port's before this
    uint64_t mean = 0;    // of what one took
    uint32_t queues = 0;  // that wait for it, by number
  };
  static_assert(2 * kMaxQueuePairs <= 32);

  bool write(Queue& queue);
  void price(Queue& queue, uint64_t took, uint64_t now);
  void blame(Queue& queue);
  void setTimer(int milliseconds);
  static void onTick(int signal, siginfo_t* info, void* context);

  Offences& offences_;
  FairShare& share_;
  CpuTime& cpu_;
  const uint64_t usual_, longest_;
  std::vector<Late> late_;               // by port number
  std::vector<MacTable::Port> waiting_;  // those with queues in it; never exceeds its capacity
  uint64_t sharedDue_ = 0;               // when all that was due is made up for
  uint64_t excess_ = 0;
  MacTable::Port offender_ = MacTable::kNoPort;

  timer_t timer_{};
  bool begun_ = false;
  volatile sig_atomic_t awake_ = false, ticking_ = false;  // shared with onTick()
};

}  // namespace vdpa::vswitch
