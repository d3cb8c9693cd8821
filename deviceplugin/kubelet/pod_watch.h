// Polls which devices pods hold. The kubelet's checkpoint may still list a freed device as held,
// and pods admitted right after a kubelet restart would then be rejected; resending the device list
// makes the kubelet rewrite its checkpoint.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "common/mutex.h"
#include "common/pod_resources.h"

namespace vdpa::plugin {

class PodWatch {
 public:
  using DeviceKey = std::pair<std::string, std::string>;  // resource, device ID
  using Handler = std::function<void(const std::set<DeviceKey>& freed)>;

  // Asks PodResources four times a second while any pod holds a device, else once a second: the
  // kubelet allows a hundred calls. `handler` runs on this object's own thread, after every change
  // of the held devices.
  PodWatch(std::string podResources, Handler handler);
  ~PodWatch();
  PodWatch(const PodWatch&) = delete;
  PodWatch& operator=(const PodWatch&) = delete;

  // The devices that pods held at the last poll; nothing if the kubelet didn't answer.
  std::optional<std::set<DeviceKey>> held() const;
  // The devices in the last answer, however old.
  std::set<DeviceKey> lastHeld() const;

 private:
  void run();
  void ask();

  const std::string socketPath_;
  PodResources podResources_;  // used by thread_ only
  Handler handler_;
  mutable Mutex mutex_;
  Condition stopping_;
  bool stop_ GUARDED_BY(mutex_) = false;
  std::set<DeviceKey> held_ GUARDED_BY(mutex_);
  bool answered_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vdpa::plugin
