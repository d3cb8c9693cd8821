#include "deviceplugin/kubelet/resource_plugin.h"

#include <fmt/core.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "deviceplugin/events/loop.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/plugin_server.h"
#include "deviceplugin/kubelet/plugin_socket.h"
#include "deviceplugin/kubelet/register_call.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

ResourcePlugin::ResourcePlugin(Loop& loop, Paths paths, const ResourceOffer& offer,
                               DeviceInfoFiles& files, Metrics& metrics,
                               std::function<void()> changed)
    : loop_(loop),
      paths_(std::move(paths)),
      resource_(offer.resource.fullName()),
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
  endpoint_ = newPluginSocketName(paths_.kubeletDirectory, resource_);
  named_ = false;
  const unsigned generation = ++generation_;
  PluginEvents events;
  events.streamStarted = [this, generation] {
    onLoop([this, generation] {
      if (generation != generation_) return;
      registration_.streamStarted(Loop::Clock::now());
      changed_();
    });
  };
  events.streamEnded = [this, generation] {
    onLoop([this, generation] {
      if (generation != generation_) return;
      log::info("{}: the kubelet's stream ended", resource_);
      registration_.streamEnded(Loop::Clock::now());
      if (registration_.streamsInTheWay()) registration_.streamsGivenUp();
      changed_();
      schedule();
    });
  };
  events.allocated = [this](bool allowed) { metrics_.allocated(resource_, allowed); };
  server_ = std::make_unique<PluginServer>(paths_.kubeletDirectory + "/" + endpoint_, devices_,
                                           order_, allocation_, std::move(events));
}

// Registers again. Streams of the server so far end before the kubelet is asked: see attempt().
void ResourcePlugin::restart() {
  registration_.restarted(Loop::Clock::now());
  changed_();
  schedule();
}

void ResourcePlugin::kubeletAppeared() {
  registration_.kubeletAppeared(Loop::Clock::now(), named_ && server_ && server_->socketIsOurs());
  changed_();
  schedule();
}

void ResourcePlugin::kubeletVanished() {
  registration_.kubeletVanished();
  changed_();
}

void ResourcePlugin::ownSocketVanished() {
  if (server_ && server_->socketIsOurs()) return;
  log::info("{}: {} was deleted; registering with a new socket", resource_, endpoint_);
  startServer();  // at once: fails if the whole directory was deleted
  restart();
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

// Every Register names a socket of its own, because the kubelet refuses one that it still has
// (plugin_socket.h). Streams of the server before end with it.
void ResourcePlugin::attempt() {
  registration_.attempted();
  try {
    if (named_ || !server_ || !server_->socketIsOurs()) startServer();
  } catch (const std::exception& error) {
    // Events in a directory that takes its place are not seen: the process must start again.
    if (!std::filesystem::exists(paths_.kubeletDirectory)) throw;
    registration_.failed(Loop::Clock::now());
    log::warn("{}: not registered with the kubelet, which is tried again: {}", resource_,
              withRemedy(error));
    return schedule();
  }
  named_ = true;
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
            log::info("{}: registered with the kubelet, {} devices", resource_, devices_.size());
          } else {
            registration_.failed(now);
            log::warn("{}: not registered with the kubelet: {}", resource_, error);
          }
          changed_();
          schedule();
        });
      });
}

}  // namespace vdpa::plugin
