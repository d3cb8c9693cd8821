// The loop of a polling thread: which queue it serves when, and when it sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <thread>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/assignments.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/forwarder.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/pace.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/sources.h"
#include "deviceplugin/datapath/switch/forwarding/turn.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"

namespace vdpa::vswitch {

// A polling thread. It serves the transmit queues assigned to it, and its queue of the uplink.
//
// A queue is hot, polled in each pass with its notifications off, or cold, waiting for a kick. Hot
// ports get equal time (deficit round robin, in cycles). Without a hot queue the thread sleeps.
class Poller {
 public:
  struct Shared {
    Epoch& epoch;
    PortTable& ports;
    MacTable& table;
    Offences& offences;
    Uplink* uplink = nullptr;  // null: none
  };
  // Starts at once, pinned to `cpu` if given. `shared` and `serving` must outlive it. Throws
  // std::system_error.
  Poller(unsigned number, std::optional<unsigned> cpu, Shared shared, ServingPage::Cell& serving);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // --- the control thread. Each takes effect at the next pass: follow it by Epoch::afterPass().
  void assign(TransmitQueue& queue) { assignments_.assign(queue); }
  // The queue, its kick included, is not touched after that pass.
  void withdraw(TransmitQueue& queue) { assignments_.withdraw(queue); }
  // The port is gone, its queues withdrawn: what it owes is not to be its number's next port's.
  void forget(MacTable::Port port) { assignments_.forget(port); }
  // While held, frames stay in the pods' rings and in the uplink.
  void hold(bool held) { hold_ = held; }

  // From any thread: time spent on passes that found frames.
  std::chrono::nanoseconds busy() const;

 private:
  // The result of one pass over the hot queues.
  struct Pass {
    size_t frames = 0;
    bool spinning = false;              // a queue is polled on, although it is empty
    uint64_t next = Notifier::kNever;   // when to look again, if nothing else
    uint64_t owing = Notifier::kNever;  // the earliest paidAt() of ports that were passed over
  };

  void run();
  void begin();
  void follow();
  // The port pays for what watching its kick took.
  void settleWatching(MacTable::Port port);
  Pass pollOnce(uint64_t now);
  void poll(Source& source, const Forwarder::Time& time, Pass& pass);
  void pollEmpty(Source& source, uint64_t now, Pass& pass);
  void pollUplink(const Forwarder::Time& time, Pass& pass);
  size_t serveUplink(const Forwarder::Time& time);
  // False: frames have come, and were forwarded.
  bool coolUplink(const Forwarder::Time& time);
  void heatUplink();
  // Charges a port for the time from `start` until now, less the share that others have to pay.
  // Returns what it has charged.
  uint64_t settle(MacTable::Port port, uint64_t start);
  // Those that are nobody's to pay but their receivers'.
  void notifyLate(uint64_t now);
  // Nobody serves the port whose eventfd has blocked any more.
  void breakOffender();
  void lookAround(uint64_t now);
  void lookOnceASecond(uint64_t now);
  void sleep(uint64_t until);
  void wait(int milliseconds);
  void setTimer(uint64_t until, uint64_t now);

  const unsigned number_;
  const std::optional<unsigned> cpu_;
  const Shared shared_;
  ServingPage::Cell& serving_;
  const uint64_t hz_;
  Assignments assignments_;
  std::atomic<bool> hold_{false};
  Counter busy_;  // cycles
  std::atomic<bool> stop_{false};

  // --- the poller's thread
  FairShare share_;
  CpuTime cpuTime_;
  Notifier notifier_;
  Forwarder forwarder_;
  Sources sources_;
  UniqueFd timer_;
  bool held_ = false;
  uint64_t lastEvents_ = 0, lastLook_ = 0;
  struct {
    bool hot;
    int wakeFd;  // -1: it can only be polled
    Pace pace;
    Turn turn;
    Memo memo;
  } uplink_;

  std::thread thread_;
};

}  // namespace vdpa::vswitch
