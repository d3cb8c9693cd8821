// Notices which devices pods hold. Of one that the kubelet has taken back, its checkpoint may still
// say that it is held, and pods that come right after a kubelet restart would then be rejected;
// sending the list once more makes the kubelet write it anew.
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
  // kubelet allows a hundred calls. `handler` runs on a thread of this object's own, after
  // every change of what is held.
  PodWatch(std::string podResources, Handler handler);
  ~PodWatch();
  PodWatch(const PodWatch&) = delete;
  PodWatch& operator=(const PodWatch&) = delete;

  // The devices that some pod held when last asked; nothing if the kubelet didn't answer.
  std::optional<std::set<DeviceKey>> held() const;
  // The same as of the last answer, however old.
  std::set<DeviceKey> lastHeld() const;

 private:
  void run();
  void ask();

  const std::string socketPath_;
  PodResources podResources_;  // its thread's alone
  Handler handler_;
  mutable Mutex mutex_;
  Condition stopping_;
  bool stop_ GUARDED_BY(mutex_) = false;
  std::set<DeviceKey> held_ GUARDED_BY(mutex_);
  bool answered_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vdpa::plugin
