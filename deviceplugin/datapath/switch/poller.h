// A polling thread: takes bursts from its queues while there are any, sleeps on the pods' kicks
// when there are none.
#pragma once

#include <atomic>
#include <optional>
#include <thread>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/call_guard.h"
#include "deviceplugin/datapath/switch/forwarder.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/uplink.h"

namespace vdpa {

class Poller {
 public:
  // Starts at once; `cpu`: pinned to it. References outlive the poller.
  Poller(unsigned number, std::optional<unsigned> cpu, Publisher& publisher, MacTable& table,
         rte_mempool* pool, Uplink* uplink, StalledCalls& stalled);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

 private:
  void run();
  bool pollOnce(const Snapshot& snapshot, uint32_t seconds);
  void sleep(const Snapshot& snapshot, uint32_t seconds);
  void rebuildEpoll(const Snapshot& snapshot);
  static void notify(const Snapshot& snapshot, unsigned poller, bool enable);

  const unsigned number_;
  const std::optional<unsigned> cpu_;
  Publisher& publisher_;
  rte_mempool* pool_;
  Uplink* uplink_;
  CallGuard guard_;
  Forwarder forwarder_;
  UniqueFd epoll_;
  uint64_t epollOf_ = UINT64_MAX;  // the snapshot whose kicks are watched
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace vdpa
