// The resources that this node offers to the kubelet: a ResourcePlugin for each, which come and go
// with the offers. Loop thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/kubelet/kubelet_watch.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/resource_plugin.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

class ResourcePlugins {
 public:
  using ById = std::map<std::string, DeviceList::Health>;  // by device ID

  struct Handlers {
    std::function<void()> changed;  // serving() may have changed
    std::function<void()> retry;    // a resource could not be offered: call offer() again
  };

  // References outlive this.
  ResourcePlugins(EventLoop& loop, ResourcePlugin::Paths paths, OfferedResources& offered,
                  DeviceInfoFiles& files, Metrics& metrics, Handlers handlers);

  // Starts to watch the kubelet.
  void watch(Inotify& inotify);
  // Removes the sockets that a killed plugin left, of these resources and of all offered before.
  void removeLeftovers(const Config& config) const;
  // Returns whether the offers have changed; the first ones count as a change.
  bool offer(std::vector<ResourceOffer> offers);
  const std::vector<ResourceOffer>& offers() const { return offers_; }

  // Includes devices that are not offered now: the datapath does not report again on a device that
  // returns before the datapath learned of its removal. A default Health forgets the device's.
  void setHealth(const ById& changes);
  // Overrides the health of all offered devices.
  void setAllHealth(const std::string& reason);
  // Forgets the health of all devices.
  void forgetHealth(const std::string& reason);
  // Call when the kubelet has freed devices of these resources.
  void resend(const std::set<std::string>& resources);

  // Ends all of them; no handler is called afterwards.
  void clear() { plugins_.clear(); }

  bool contains(const std::string& resource) const { return plugins_.contains(resource); }
  DeviceList::Health healthOf(const std::string& resource, const std::string& id) const;
  // True if all resources are registered; there may be none for this node.
  bool serving() const;

  struct Summary {
    std::string resource;
    bool registered;
    size_t devices, healthy;
  };
  std::vector<Summary> summaries() const;

 private:
  void update();

  EventLoop& loop_;
  const ResourcePlugin::Paths paths_;
  OfferedResources& offered_;
  DeviceInfoFiles& files_;
  Metrics& metrics_;
  const Handlers handlers_;
  bool offering_ = false;  // the first offers have been made
  std::vector<ResourceOffer> offers_;
  ById health_;
  bool incomplete_ = false;  // a resource of offers_ has no plugin
  EventLoop::Timer retry_;
  std::map<std::string, std::unique_ptr<ResourcePlugin>> plugins_;  // by full name
};

}  // namespace vdpa::plugin
