// Keeps a device-info file for every offered device, and removes those of devices that are neither
// offered nor held by a pod. Loop thread only.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/kubelet/resource_plugins.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

class DeviceInfoUpkeep {
 public:
  using Held = std::optional<std::set<PodWatch::DeviceKey>>;

  // `found`: the offers of devices that are on the node; devices that are listed only because a pod
  // holds them have their files already. `held`: PodWatch::held(). References outlive this.
  DeviceInfoUpkeep(EventLoop& loop, DeviceInfoFiles& files, OfferedResources& offered,
                   const ResourcePlugins& plugins,
                   std::function<const std::vector<ResourceOffer>&()> found,
                   std::function<Held()> held)
      : files_(files),
        offered_(offered),
        plugins_(plugins),
        found_(std::move(found)),
        held_(std::move(held)),
        writing_(loop, [this] { write(); }),
        tidying_(loop, [this] { tidy(); }) {}

  // Call when the offers have changed.
  void renew();
  // Call when a pod has released a device.
  void tidy();

 private:
  void write();

  DeviceInfoFiles& files_;
  OfferedResources& offered_;
  const ResourcePlugins& plugins_;
  const std::function<const std::vector<ResourceOffer>&()> found_;
  const std::function<Held()> held_;
  const EventLoop::Clock::time_point started_ = EventLoop::Clock::now();
  size_t written_ = 0;  // of found_, in its order
  EventLoop::Timer writing_, tidying_;
};

}  // namespace vdpa::plugin
