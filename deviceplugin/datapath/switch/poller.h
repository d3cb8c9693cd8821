// A polling thread: forwards bursts from its queues while there are frames. Without frames it
// sleeps until a pod kicks; if all frames have to wait for their port's rate limit, until a timer.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/call_guard.h"
#include "deviceplugin/datapath/switch/counters.h"
#include "deviceplugin/datapath/switch/forwarder.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/uplink.h"

namespace vdpa::vswitch {

class Poller {
 public:
  // Starts at once, pinned to `cpu` if given. References outlive the poller.
  Poller(unsigned number, std::optional<unsigned> cpu, Publisher& publisher, MacTable& table,
         rte_mempool* pool, Uplink* uplink, StalledCalls& stalled, ServingPage::Cell& serving);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // The time spent on passes that found frames; the rest of a polling thread's time is spare,
  // although the kernel counts it as used. May be called from any thread.
  std::chrono::nanoseconds busy() const;

 private:
  // The result of one pass over all queues.
  struct Pass {
    bool frames = false;
    bool unlimited = false;       // some of them came from a port without a rate limit
    uint64_t opens = UINT64_MAX;  // when the first waiting port may send again
  };

  void run();
  // `now` in TSC cycles.
  Pass pollOnce(const Snapshot& snapshot, uint64_t now);
  bool idle(const Pass& pass, uint64_t now) const;
  void sleep(const Snapshot& snapshot);
  void wakeAt(uint64_t time, uint64_t now);
  void rebuildEpoll(const Snapshot& snapshot);

  const unsigned number_;
  const std::optional<unsigned> cpu_;
  Publisher& publisher_;
  rte_mempool* pool_;
  Uplink* uplink_;
  CallGuard guard_;
  ServingPage::Cell& serving_;
  Forwarder forwarder_;
  const uint64_t hz_;
  uint64_t lastUnlimited_ = 0, lastLimited_ = 0;  // when frames last came
  UniqueFd timer_;
  UniqueFd epoll_;
  uint64_t epollOf_ = UINT64_MAX;  // sequence of the snapshot whose kicks it watches
  Counter busy_;                   // TSC cycles
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace vdpa::vswitch
