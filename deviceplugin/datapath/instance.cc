#include "deviceplugin/datapath/instance.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <stop_token>
#include <string>
#include <utility>

#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kMaxInterval = 10s;
constexpr std::chrono::milliseconds kShortestInterval = 100ms;
// Between two reports of the health of all devices, however often something changes.
constexpr auto kHealthInterval = 20ms;

std::string prepared(const Paths& paths) {
  makeDirectory(paths.runDir(), 0700);
  return paths.lockFile();
}

}  // namespace

Instance::Instance(const Node::Options& options, const std::string& metricsAddress,
                   std::function<bool()> unfinished)
    : lock_(prepared(options.paths), "vdpa-datapath", InstanceLock::Others::refuse),
      unfinished_(std::move(unfinished)),
      watchers_([this] { return datapath_.status.deviceStates(); }),
      datapath_(options, [this] { health_.raise(); }),
      metrics_(datapath_, metricsAddress),
      service_(
          datapath_, watchers_,
          {[this] {
             devices_.raise();
             watchers_.publish();
           },
           [this](double seconds, bool succeeded) { metrics_.attachDone(seconds, succeeded); }}),
      server_(options.paths.serverSocket(), {&service_, &healthService_}) {
  publisher_ = std::jthread([this](const std::stop_token& stop) { publishHealth(stop); });
  // Several scans per grace period.
  reconciler_ = std::jthread(
      [this, interval = std::clamp(options.releaseAfter / 3, kShortestInterval, kMaxInterval)](
          const std::stop_token& stop) { reconcile(stop, interval); });
  upgrader_ = std::jthread([this](const std::stop_token& stop) { upgradeProcesses(stop); });
}

Instance::~Instance() {
  log::info("stopping; workers and switches keep running");
  datapath_.attachments.shutdown();
  watchers_.shutdown();
  server_.shutdown();
}

void Instance::publishHealth(const std::stop_token& stop) {
  health_.raise();
  while (!stop.stop_requested())
    if (health_.wait(stop, 1h)) {
      watchers_.publish();
      never_.wait(stop, kHealthInterval);
    }
}

void Instance::reconcile(const std::stop_token& stop, std::chrono::milliseconds interval) {
  while (!stop.stop_requested()) {
    never_.wait(stop, interval);
    if (stop.stop_requested()) return;
    try {
      datapath_.offers.retryFailed();
      health_.raise();  // the kernel's devices change without notifying us
      datapath_.attachments.detachOrphans();
      if (unfinished_ && unfinished_()) unfinished_ = nullptr;
    } catch (const std::exception& error) {
      log::warn("cannot reconcile the attachments: {}", error.what());
    }
  }
}

// Upgrades pods' engines at once, and an unused switch once the plugin has reported it.
void Instance::upgradeProcesses(const std::stop_token& stop) {
  devices_.raise();
  while (!stop.stop_requested())
    if (devices_.wait(stop, 1h)) datapath_.upgrade.run(stop);
}

void Instance::Signal::raise() {
  {
    Lock lock(mutex_);
    raised_ = true;
  }
  changed_.notifyAll();
}

bool Instance::Signal::wait(const std::stop_token& stop, std::chrono::milliseconds timeout) {
  // Constructed before the lock is taken, since it calls back at once if the stop is already
  // requested.
  const std::stop_callback wake(stop, [this] {
    { Lock lock(mutex_); }  // so that the notification can't fall between the check and the wait
    changed_.notifyAll();
  });
  Lock lock(mutex_);
  const auto deadline = Condition::Clock::now() + timeout;
  while (!raised_ && !stop.stop_requested())
    if (!changed_.waitUntil(mutex_, deadline)) break;
  return std::exchange(raised_, false);
}

}  // namespace vdpa::datapath
