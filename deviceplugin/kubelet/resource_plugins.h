// The resources that this node offers to the kubelet: a ResourcePlugin for each, which come and go
// with the offers. All of it is for the loop's thread.
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
    std::function<void()> changed;  // serving() may be another one
    std::function<void()> retry;    // a resource could not be offered: time for another offer()
  };

  // References outlive this.
  ResourcePlugins(EventLoop& loop, ResourcePlugin::Paths paths, OfferedResources& offered,
                  DeviceInfoFiles& files, Metrics& metrics, Handlers handlers);

  // Begins to follow the kubelet.
  void watch(Inotify& inotify);
  // Removes the sockets that a plugin left when it was killed, of these resources and of all that
  // were offered before.
  void removeLeftovers(const Config& config) const;
  // Whether these are others than before, the first ones included.
  bool offer(std::vector<ResourceOffer> offers);
  const std::vector<ResourceOffer>& offers() const { return offers_; }

  // Of devices that are not offered just now, too: the datapath says nothing of one that comes back
  // before it heard that it was gone. The default one: nothing is known of it any more.
  void setHealth(const ById& changes);
  // Of each one that is offered, whatever was said before.
  void setAllHealth(const std::string& reason);
  // Nothing is known any more of any.
  void forgetHealth(const std::string& reason);
  // The kubelet has taken back devices of these resources.
  void resend(const std::set<std::string>& resources);

  // Ends all of them; no handler is called any more.
  void clear() { plugins_.clear(); }

  bool contains(const std::string& resource) const { return plugins_.contains(resource); }
  DeviceList::Health healthOf(const std::string& resource, const std::string& id) const;
  // Every resource is registered, and there is one.
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
  bool offering_ = false;  // since the first offers
  std::vector<ResourceOffer> offers_;
  ById health_;
  bool incomplete_ = false;  // a resource of offers_ has no plugin
  EventLoop::Timer retry_;
  std::map<std::string, std::unique_ptr<ResourcePlugin>> plugins_;  // by full name
};

}  // namespace vdpa::plugin
