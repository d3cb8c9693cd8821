// The plugin's side of vdpa.datapath.v1: reports the set of devices and receives their health,
// across restarts of the datapath. If a datapath of another release does not know all fields of a
// resource, the resource's devices are unhealthy.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "common/event_loop.h"
#include "datapath.pb.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

class DatapathLink {
 public:
  using Changes = std::map<std::string, DeviceList::Health>;
  struct Handlers {                              // on the loop's thread
    std::function<void(const Changes&)> health;  // default: the datapath no longer has the device
    std::function<void(const std::string& reason)>
        lost;  // the state of every device is now unknown
  };

  DatapathLink(EventLoop& loop, std::string socketPath, Handlers handlers);
  ~DatapathLink();

  // Sends the set now and after every reconnection.
  void setOffers(const std::vector<ResourceOffer>& offers);
  // Whether the datapath has reported, and not been restarted since, that the node was drained.
  bool drained() const { return drained_; }

 private:
  class Session;
  void connect();
  void take(const datapath::v1::WatchResponse& response);
  void learn(const datapath::v1::SetDevicesResponse& response);
  void judge();
  DeviceList::Health healthOf(const std::string& id) const;
  void sessionEnded(const std::string& reason);

  EventLoop& loop_;
  std::string socketPath_;
  Handlers handlers_;
  std::shared_ptr<const datapath::v1::SetDevicesRequest> devices_;
  std::shared_ptr<Session> session_;
  const EventLoop::Lifetime lifetime_;
  EventLoop::Timer reconnect_;
  std::string lastReason_;
  unsigned sessions_ = 0;
  bool drained_ = false;                            // in this session
  bool answered_ = false;                           // in this session
  std::optional<datapath::v1::Receiver> receiver_;  // none, but answered: release 0.1.0
  std::set<std::string> warned_;
  Changes reported_;                            // reported by the datapath
  std::map<std::string, std::string> lacking_;  // device ID -> why its resource isn't in force
};

}  // namespace vdpa::plugin
