#include "deviceplugin/kubelet/resource_plugin.h"

#include <fmt/core.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/plugin_server.h"
#include "deviceplugin/kubelet/plugin_socket.h"
#include "deviceplugin/kubelet/register_call.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

ResourcePlugin::ResourcePlugin(EventLoop& loop, Paths paths, const ResourceOffer& offer,
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
      lifetime_(loop),
      post_(lifetime_.poster()),
      due_(loop, [this] {
        const auto due = registration_.due();
        if (due && *due <= EventLoop::Clock::now()) attempt();
      }) {
  startServer();
}

ResourcePlugin::~ResourcePlugin() {
  if (cancel_) cancel_();
  server_.reset();
}

void ResourcePlugin::startServer() {
  server_.reset();
  endpoint_ = newPluginSocketName(paths_.kubeletDirectory, resource_);
  named_ = false;
  const unsigned generation = ++generation_;
  PluginEvents events;
  events.streamStarted = [this, generation] {
    post_([this, generation] {
      if (generation != generation_) return;
      registration_.streamStarted(EventLoop::Clock::now());
      changed_();
    });
  };
  events.streamEnded = [this, generation] {
    post_([this, generation] {
      if (generation != generation_) return;
      log::info("{}: the kubelet's stream ended", resource_);
      registration_.streamEnded(EventLoop::Clock::now());
      if (registration_.streamsInTheWay()) registration_.streamsGivenUp();
      changed_();
      schedule();
    });
  };
  events.allocated = [this](bool allowed) { metrics_.allocated(resource_, allowed); };
  server_ = std::make_unique<PluginServer>(paths_.kubeletDirectory + "/" + endpoint_, devices_,
                                           order_, allocation_, std::move(events));
}

// Registers again. Ends the current server's streams before it asks the kubelet: see attempt().
void ResourcePlugin::restart() {
  registration_.restarted(EventLoop::Clock::now());
  changed_();
  schedule();
}

void ResourcePlugin::kubeletAppeared() {
  registration_.kubeletAppeared(EventLoop::Clock::now(),
                                named_ && server_ && server_->socketIsOurs());
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
  const auto delay = std::chrono::ceil<std::chrono::milliseconds>(*due - EventLoop::Clock::now());
  if (delay.count() <= 0) return attempt();
  due_.start(delay);
}

// Every Register names a new socket, because the kubelet refuses one that it still has
// (plugin_socket.h). The previous server's streams end with it.
void ResourcePlugin::attempt() {
  registration_.attempted();
  try {
    if (named_ || !server_ || !server_->socketIsOurs()) startServer();
  } catch (const std::exception& error) {
    // The watch does not cover a directory that replaces it: the process must restart.
    if (!std::filesystem::exists(paths_.kubeletDirectory)) throw;
    registration_.failed(EventLoop::Clock::now());
    log::warn("cannot register {} with the kubelet (retrying): {}", resource_, withRemedy(error));
    return schedule();
  }
  named_ = true;
  const unsigned generation = generation_;
  cancel_ = registerWithKubelet(
      loop_, paths_.kubeletDirectory + "/kubelet.sock", endpoint_, resource_,
      [this, generation, post = post_](std::string error) {
        post([this, generation, error = std::move(error)] {
          if (generation != generation_) return;
          const auto now = EventLoop::Clock::now();
          if (error.empty()) {
            registration_.succeeded(now);
            metrics_.registered(resource_);
            log::info("{}: registered with the kubelet, {} devices", resource_, devices_.size());
          } else {
            registration_.failed(now);
            log::warn("cannot register {} with the kubelet (retrying): {}", resource_, error);
          }
          changed_();
          schedule();
        });
      });
}

}  // namespace vdpa::plugin
