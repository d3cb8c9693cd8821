// Puts vdpa-datapath together: the attachments, their API, and the threads that maintain them.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "common/instance_lock.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/api/api_server.h"
#include "deviceplugin/datapath/api/health_service.h"
#include "deviceplugin/datapath/api/metrics.h"
#include "deviceplugin/datapath/api/service.h"
#include "deviceplugin/datapath/api/watchers.h"
#include "deviceplugin/datapath/attachments/datapath.h"

namespace vdpa::datapath {

class Instance {
 public:
  // `metricsAddress`: host:port; empty for none. `unfinished`: called periodically, from one of its
  // threads, until it returns true; may be empty. Throws if the start fails.
  Instance(const Node::Options& options, const std::string& metricsAddress,
           std::function<bool()> unfinished);
  // Stops serving; workers and switches keep running.
  ~Instance();

 private:
  // A flag that one thread waits for.
  class Signal {
   public:
    void raise();
    // True if it was raised; lowers it.
    bool wait(const std::stop_token& stop, std::chrono::milliseconds timeout);

   private:
    Mutex mutex_;
    Condition changed_;
    bool raised_ GUARDED_BY(mutex_) = false;
  };

  void publishHealth(const std::stop_token& stop);
  void reconcile(const std::stop_token& stop, std::chrono::milliseconds interval);
  void upgradeProcesses(const std::stop_token& stop);

  InstanceLock lock_;
  Signal health_;
  Signal never_;
  Signal devices_;
  std::function<bool()> unfinished_;  // used only by reconcile()'s thread
  Watchers watchers_;
  Datapath datapath_;
  Metrics metrics_;
  Service service_;
  HealthService healthService_;
  ApiServer server_;
  std::jthread publisher_;
  std::jthread reconciler_;
  std::jthread upgrader_;
};

}  // namespace vdpa::datapath
