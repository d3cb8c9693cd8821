#include "deviceplugin/datapath/attachments/upgrade.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/backend.h"
#include "common/log.h"
#include "common/version.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/worker_state.h"
#include "deviceplugin/datapath/processes/process.h"
#include "deviceplugin/datapath/processes/worker_handle.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kUpTime = 20s;       // for an engine to answer
constexpr auto kWorkersTime = 10s;  // for its workers to run with it
constexpr auto kHold = 500ms;       // how long resumed workers wait for the others
constexpr auto kPollInterval = 2ms;

// False at the deadline, or when asked to stop.
template <typename Condition>
bool waitFor(const std::stop_token& stop, std::chrono::milliseconds time, Condition condition) {
  for (const auto deadline = Clock::now() + time; !condition();
       std::this_thread::sleep_for(kPollInterval))
    if (stop.stop_requested() || Clock::now() > deadline) return false;
  return true;
}

}  // namespace

void Upgrade::run(const std::stop_token& stop) {
  node_.switches.settle();
  for (const auto& upgradable : upgradableProcesses()) {
    if (failed_ || stop.stop_requested()) return;
    try {
      upgradeProcess(upgradable, stop);
    } catch (const std::exception& error) {
      log::error("cannot replace {}: {}; the remaining engines are not replaced", upgradable.title,
                 error.what());
      failed_ = true;
    }
  }
}

std::vector<Upgrade::UpgradableProcess> Upgrade::upgradableProcesses() {
  std::vector<UpgradableProcess> processes;
  for (const auto& [resource, vswitch] : node_.switches.all())
    processes.push_back({"vdpa-switch of " + resource,
                         node_.options.programs.switchFor(vswitch->config().uplink),
                         [vswitch = vswitch] { return vswitch->process(); },
                         [resource = resource](const DeviceTable::Device& device) {
                           return device.record->device.backend == BackendKind::software &&
                                  device.record->attachment.resource == resource;
                         },
                         [this, resource = resource] { node_.switches.upgrade(resource); },
                         [vswitch = vswitch] { vswitch->go(); }});
  for (const auto& [id, device] : node_.table.all()) {
    if (!device.record || device.record->device.backend != BackendKind::dpdk) continue;
    processes.push_back({"vdpa-pmd of " + id, node_.options.programs.pmd,
                         [this, id = id] { return node_.backends.dpdk.find(id); },
                         [id = id](const DeviceTable::Device& other) {
                           return other.record->attachment.deviceId == id;
                         },
                         [this, id = id] {
                           const auto lease = node_.table.lease(id, Clock::now() + kUpTime);
                           const auto now = node_.table.find(id);
                           if (lease && now && now->record)
                             node_.backends.dpdk.upgrade(*now->record);
                         },
                         [] {}});
  }
  return processes;
}

void Upgrade::upgradeProcess(const UpgradableProcess& upgradable, const std::stop_token& stop) {
  const auto settled = [&] {
    const auto process = upgradable.process();
    if (!process) return true;
    const auto status = process->status();
    return status.up || status.deaths > 0;
  };
  // A process that isn't up is restarted from the installed program anyway.
  if (!waitFor(stop, kUpTime, settled)) return;
  const auto process = upgradable.process();
  if (!process) return;
  const auto status = process->status();
  if (!status.up || !status.found || status.version == programVersion()) return;
  const std::string installed = versionOf(upgradable.program);
  if (installed == status.version) {
    log::warn("{} is not replaced: {} has version {} too, but vdpa-datapath has {}",
              upgradable.title, upgradable.program, installed, programVersion());
    return;
  }

  const auto running = runningWorkers(upgradable, stop);
  if (stop.stop_requested()) return;
  log::info("{} has {}: replacing it with version {}; running pods: {}", upgradable.title,
            status.version.empty() ? "an unknown version" : "version " + status.version, installed,
            running.size());
  const auto begin = Clock::now();
  const auto since = [begin] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();
  };
  upgradable.upgrade();
  waitFor(stop, kUpTime, settled);
  if (const auto next = upgradable.process(); next && !next->status().up) {
    if (stop.stop_requested()) return;
    throw std::runtime_error(
        fmt::format("version {} did not come up: {}", installed, next->status().reason));
  }
  const auto took = since();
  // A pod may have ended its session, or its container, meanwhile.
  const auto back = [](const auto& worker) {
    const auto phase = worker.second->state().phase;
    return phase == WorkerState::Phase::running || phase == WorkerState::Phase::waiting;
  };
  const auto allBack = [&] { return std::all_of(running.begin(), running.end(), back); };
  waitFor(stop, kHold, allBack);
  upgradable.go();
  waitFor(stop, kWorkersTime, allBack);
  for (const auto& worker : running)
    if (!back(worker))
      log::warn("{} is not running again with the new {}: {}", worker.first, upgradable.title,
                worker.second->state().text());
  log::info("replaced {}: up again after {} ms, its pods after {} ms", upgradable.title, took,
            since());
}

// The workers whose packets pass. Waits for the states of workers that were just adopted.
std::map<std::string, std::shared_ptr<WorkerHandle>> Upgrade::runningWorkers(
    const UpgradableProcess& upgradable, const std::stop_token& stop) const {
  std::map<std::string, std::shared_ptr<WorkerHandle>> workers;
  for (const auto& [id, device] : node_.table.all())
    if (device.record && device.worker && upgradable.serves(device)) workers[id] = device.worker;
  waitFor(stop, kWorkersTime, [&] {
    return std::all_of(workers.begin(), workers.end(),
                       [](const auto& worker) { return worker.second->status().up; });
  });
  std::erase_if(workers, [](const auto& worker) {
    return worker.second->state().phase != WorkerState::Phase::running;
  });
  return workers;
}

}  // namespace vdpa::datapath
