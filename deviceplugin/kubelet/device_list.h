// One resource's devices and their health, shared between the deciding loop and the answering gRPC
// threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/resources/device.h"
#include "deviceplugin/resources/preferred_allocation.h"

namespace v1beta1 {
class ListAndWatchResponse;
}

namespace vdpa::plugin {

class DeviceList {
 public:
  struct Health {
    bool healthy = false;
    std::string reason = "waiting for vdpa-datapath to report it";
    bool operator==(const Health&) const = default;
  };
  using Message = std::shared_ptr<const v1beta1::ListAndWatchResponse>;
  using Listener = std::function<void(const Message& message, uint64_t version)>;

  // With `topology`, the list has each device's NUMA node.
  DeviceList(const std::vector<Device>& devices, bool topology);

  // From any thread. A device is healthy if its own `unhealthy` is empty and the datapath reports
  // it as healthy.
  // Returns whether the list has changed. `health` is the datapath's report on devices that are new
  // to the list.
  bool setDevices(const std::vector<Device>& devices,
                  const std::map<std::string, Health>& health = {});
  void setHealth(const std::map<std::string, Health>& changes);  // unknown IDs are ignored
  void setAllHealth(const Health& health);
  void resend();                                 // the unchanged list
  Health healthOf(const std::string& id) const;  // throws std::out_of_range for an unknown ID
  // A device with its health, read atomically; nothing for an unknown ID.
  std::optional<std::pair<Device, Health>> find(const std::string& id) const;
  // Those of `ids` that are in the list, for GetPreferredAllocation.
  std::vector<Choice> choices(const std::vector<std::string>& ids) const;
  size_t healthyCount() const;
  size_t size() const;

  // The whole list and a number that grows with every change.
  std::pair<Message, uint64_t> current() const;
  // `listener` is called on every change, by the thread that makes it, and must not call the list's
  // setters.
  void subscribe(const void* key, Listener listener);
  void unsubscribe(const void* key);

 private:
  struct Entry {
    Device device;
    Health datapath;
    Health health() const;
  };
  void publish() REQUIRES(mutex_);

  const bool topology_;
  mutable Mutex mutex_;
  std::vector<std::string> order_ GUARDED_BY(mutex_);
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);
  Message message_ GUARDED_BY(mutex_);
  uint64_t version_ GUARDED_BY(mutex_) = 0;
  std::map<const void*, Listener> listeners_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::plugin
