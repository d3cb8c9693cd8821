#include "deviceplugin/kubelet/resource_plugins.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/kubelet/kubelet_watch.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/plugin_socket.h"
#include "deviceplugin/kubelet/resource_plugin.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

// A resource that could not be offered.
constexpr auto kOfferAgain = std::chrono::seconds(2);

}  // namespace

ResourcePlugins::ResourcePlugins(EventLoop& loop, ResourcePlugin::Paths paths,
                                 OfferedResources& offered, DeviceInfoFiles& files,
                                 Metrics& metrics, Handlers handlers)
    : loop_(loop),
      paths_(std::move(paths)),
      offered_(offered),
      files_(files),
      metrics_(metrics),
      handlers_(std::move(handlers)),
      retry_(loop, [this] { handlers_.retry(); }) {}

void ResourcePlugins::watch(Inotify& inotify) {
  const auto each = [this](void (ResourcePlugin::*method)()) {
    for (const auto& [resource, plugin] : plugins_) (*plugin.*method)();
  };
  KubeletWatch(inotify, paths_.kubeletDirectory,
               {.appeared = [each] { each(&ResourcePlugin::kubeletAppeared); },
                .vanished = [each] { each(&ResourcePlugin::kubeletVanished); },
                .removed =
                    [this](const std::string& name) {
                      for (const auto& [resource, plugin] : plugins_)
                        if (name == plugin->endpoint()) plugin->ownSocketVanished();
                    }});
}

void ResourcePlugins::removeLeftovers(const Config& config) const {
  auto resources = offered_.names();
  for (const auto& resource : config.resources) resources.insert(resource.fullName());
  removeLeftoverSockets(paths_.kubeletDirectory, resources);
}

bool ResourcePlugins::offer(std::vector<ResourceOffer> offers) {
  // In most cases nothing has changed for the kubelet.
  const bool others = !std::exchange(offering_, true) || offers != offers_;
  offers_ = std::move(offers);
  if (others || incomplete_) update();
  return others;
}

void ResourcePlugins::update() {
  auto names = offered_.names();
  for (const auto& offer : offers_) names.insert(offer.resource.fullName());
  offered_.replace(std::move(names));  // before any of their files is written
  std::erase_if(plugins_, [&](const auto& entry) {
    const bool gone = std::none_of(offers_.begin(), offers_.end(), [&](const ResourceOffer& offer) {
      return offer.resource.fullName() == entry.first;
    });
    if (gone) {
      log::info("{} is no longer offered", entry.first);
      metrics_.withdrawn(entry.first);
    }
    return gone;
  });
  for (const auto& offer : offers_)  // recreate those registered with other options
    if (const auto known = plugins_.find(offer.resource.fullName());
        known != plugins_.end() && !known->second->fits(offer.resource))
      plugins_.erase(known);
  const bool there = kubeletThere(paths_.kubeletDirectory);
  incomplete_ = false;
  for (const auto& offer : offers_) {
    const std::string name = offer.resource.fullName();
    if (const auto known = plugins_.find(name); known != plugins_.end()) {
      if (known->second->devices().setDevices(offer.devices, health_))
        log::info("{}: {} devices now", name, offer.devices.size());
      continue;
    }
    try {
      auto plugin = std::make_unique<ResourcePlugin>(loop_, paths_, offer, files_, metrics_,
                                                     handlers_.changed);
      plugin->devices().setHealth(health_);
      if (there) plugin->kubeletAppeared();
      plugins_.emplace(name, std::move(plugin));
    } catch (const std::exception& error) {  // continue with the other resources
      log::error("cannot register {} with the kubelet (retrying): {}", name, withRemedy(error));
      incomplete_ = true;
    }
  }
  if (incomplete_) retry_.startWithin(kOfferAgain);
  if (!there)
    log::info("waiting for the kubelet to listen on {}/kubelet.sock", paths_.kubeletDirectory);
}

void ResourcePlugins::setHealth(const ById& changes) {
  for (const auto& [id, health] : changes)
    if (health == DeviceList::Health())
      health_.erase(id);
    else
      health_[id] = health;
  for (const auto& [name, plugin] : plugins_) plugin->devices().setHealth(changes);
}

void ResourcePlugins::setAllHealth(const std::string& reason) {
  for (const auto& [name, plugin] : plugins_) plugin->devices().setAllHealth({false, reason});
}

void ResourcePlugins::forgetHealth(const std::string& reason) {
  health_.clear();
  setAllHealth(reason);
}

void ResourcePlugins::resend(const std::set<std::string>& resources) {
  for (const auto& name : resources)
    if (const auto plugin = plugins_.find(name); plugin != plugins_.end())
      plugin->second->devices().resend();
}

DeviceList::Health ResourcePlugins::healthOf(const std::string& resource,
                                             const std::string& id) const {
  if (const auto plugin = plugins_.find(resource); plugin != plugins_.end())
    return plugin->second->devices().healthOf(id);
  return {false, resource + " is not offered yet: see the plugin's log"};
}

bool ResourcePlugins::serving() const {
  return offering_ && !incomplete_ &&
         std::all_of(plugins_.begin(), plugins_.end(),
                     [](const auto& entry) { return entry.second->registered(); });
}

std::vector<ResourcePlugins::Summary> ResourcePlugins::summaries() const {
  std::vector<Summary> all;
  for (const auto& [name, plugin] : plugins_)
    all.push_back(
        {name, plugin->registered(), plugin->devices().size(), plugin->devices().healthyCount()});
  return all;
}

}  // namespace vdpa::plugin
