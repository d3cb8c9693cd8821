#include "deviceplugin/kubelet/pod_watch.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "common/log.h"
#include "common/mutex.h"

namespace vdpa::plugin {

PodWatch::PodWatch(std::string podResources, Handler handler)
    : socketPath_(podResources),
      podResources_(std::move(podResources)),
      handler_(std::move(handler)),
      thread_([this] { run(); }) {}

PodWatch::~PodWatch() {
  {
    Lock lock(mutex_);
    stop_ = true;
  }
  stopping_.notifyAll();
  thread_.join();
}

std::optional<std::set<PodWatch::DeviceKey>> PodWatch::held() const {
  Lock lock(mutex_);
  if (!answered_) return std::nullopt;
  return held_;
}

std::set<PodWatch::DeviceKey> PodWatch::lastHeld() const {
  Lock lock(mutex_);
  return held_;
}

void PodWatch::run() {
  for (;;) {
    ask();
    Lock lock(mutex_);
    const auto pause = std::chrono::milliseconds(held_.empty() ? 1000 : 250);
    const auto next = Condition::Clock::now() + pause;
    while (!stop_)
      if (!stopping_.waitUntil(mutex_, next)) break;
    if (stop_) return;
  }
}

void PodWatch::ask() {
  const auto unanswered = [this] {
    Lock lock(mutex_);
    answered_ = false;
  };
  if (!std::filesystem::exists(socketPath_)) return unanswered();
  std::set<DeviceKey> now;
  try {
    for (const auto& device : podResources_.list()) now.emplace(device.resource, device.deviceId);
  } catch (const std::exception& error) {
    log::debug("{}", error.what());  // a restarting kubelet; it will answer again
    return unanswered();
  }
  std::set<DeviceKey> freed;
  bool changed = false;
  {
    Lock lock(mutex_);
    changed = held_ != now;
    std::set_difference(held_.begin(), held_.end(), now.begin(), now.end(),
                        std::inserter(freed, freed.end()));
    held_ = std::move(now);
    answered_ = true;
  }
  if (changed) handler_(freed);
}

}  // namespace vdpa::plugin
