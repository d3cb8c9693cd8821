// See the header.
#include "deviceplugin/kubelet/resource_plugin.h"

#include <fmt/format.h>

#include "common/log.h"
#include "common/naming.h"
#include "deviceplugin/kubelet/register_call.h"

namespace vdpa {

ResourcePlugin::ResourcePlugin(Loop& loop, Paths paths, const Offer& offer, DeviceInfoFiles& files,
                               Metrics& metrics, std::function<void()> changed)
    : loop_(loop),
      paths_(std::move(paths)),
      resource_(offer.resource.fullName()),
      endpoint_(fileName(resource_) + ".sock"),
      topology_(offer.resource.topology),
      order_(offer.resource.allocation),
      metrics_(metrics),
      changed_(std::move(changed)),
      devices_(offer.devices, topology_),
      allocation_(resource_, paths_.runDirectory, devices_, files),
      self_(std::make_shared<ResourcePlugin*>(this)),
      alive_(self_) {
  startServer();
}

ResourcePlugin::~ResourcePlugin() {
  self_.reset();
  if (cancel_) cancel_();
  server_.reset();
}

void ResourcePlugin::onLoop(std::function<void()> task) {
  loop_.post([alive = alive_, task = std::move(task)] {
    if (alive.lock()) task();
  });
}

void ResourcePlugin::startServer() {
  server_.reset();
  const unsigned generation = ++generation_;
  PluginEvents events;
  events.streamStarted = [this, generation] {
    onLoop([this, generation] {
      if (generation != generation_) return;
      registration_.streamStarted();
      changed_();
    });
  };
  events.streamEnded = [this, generation] {
    onLoop([this, generation] {
      if (generation != generation_) return;
      spdlog::info("{}: the kubelet's stream ended", resource_);
      registration_.streamEnded(Loop::Clock::now());
      if (registration_.streamsInTheWay()) startServer();
      changed_();
      schedule();
    });
  };
  events.allocated = [this](bool allowed) { metrics_.allocated(resource_, allowed); };
  server_ = std::make_unique<PluginServer>(paths_.kubeletDirectory + "/" + endpoint_, devices_,
                                           order_, allocation_, std::move(events));
  registration_.restarted(Loop::Clock::now());
}

void ResourcePlugin::kubeletAppeared() {
  // A stream that still lives belongs to a kubelet that is gone or going: end it before the new one
  // is asked.
  if (!registration_.due() || !server_->socketIsOurs()) startServer();
  registration_.kubeletAppeared(Loop::Clock::now());
  changed_();
  schedule();
}

void ResourcePlugin::kubeletVanished() {
  registration_.kubeletVanished();
  changed_();
}

void ResourcePlugin::ownSocketVanished() {
  if (server_->socketIsOurs()) return;  // the event of a socket that has been replaced since
  spdlog::info("{}: {} was deleted; making it anew", resource_, endpoint_);
  startServer();
  changed_();
  schedule();
}

void ResourcePlugin::schedule() {
  const auto due = registration_.due();
  if (!due) return;
  const auto delay = std::chrono::ceil<std::chrono::milliseconds>(*due - Loop::Clock::now());
  if (delay.count() <= 0) return attempt();
  loop_.runAfter(delay, [this, alive = std::weak_ptr(self_)] {
    if (!alive.lock()) return;
    const auto now = Loop::Clock::now();
    if (const auto again = registration_.due(); again && *again <= now) attempt();
  });
}

void ResourcePlugin::attempt() {
  registration_.attempted();
  const unsigned generation = generation_;
  cancel_ = registerWithKubelet(
      loop_, paths_.kubeletDirectory + "/kubelet.sock", endpoint_, resource_,
      [this, generation, alive = alive_, &loop = loop_](std::string error) {
        loop.post([this, generation, alive, error = std::move(error)] {
          if (!alive.lock() || generation != generation_) return;
          const auto now = Loop::Clock::now();
          if (error.empty()) {
            registration_.succeeded(now);
            metrics_.registered(resource_);
            spdlog::info("{}: registered with the kubelet, {} devices", resource_, devices_.size());
          } else {
            registration_.failed(now);
            spdlog::warn("{}: not registered with the kubelet: {}", resource_, error);
          }
          changed_();
          schedule();
        });
      });
}

}  // namespace vdpa
