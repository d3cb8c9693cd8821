#include "deviceplugin/datapath/attachments/drain.h"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/cgroup.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {
namespace {

// Drivers take seconds to release a function.
constexpr auto kUndoTime = std::chrono::seconds(20);

}  // namespace

Drain::Drained Drain::run() {
  Lock setting(node_.settingDevices);
  if (const auto holders = node_.table.close(); !holders.empty())
    throw RefusedError(Refusal::inUse,
                       fmt::format("pods still have devices of this node: {}; delete them, or move "
                                   "them to other nodes, and drain again",
                                   fmt::join(holders, ", ")));
  log::info("draining: no pod has a device, and none gets one until vdpa-datapath is restarted");
  node_.onHealth();
  Drained drained;
  endProcesses(drained);
  const bool allEnded = drained.left.empty();

  node_.provisioner.want({});
  for (const auto& id : node_.provisioner.waitUndone(DeviceTable::Clock::now() + kUndoTime))
    drained.left.push_back(fmt::format(
        "the vDPA device that was made for {}: the log of vdpa-datapath has the reason", id));
  const Paths& paths = node_.options.paths;
  std::vector<std::string> directories = {paths.devices()};
  if (allEnded)  // else a process that still runs could no longer be found
    directories.insert(directories.end(), {paths.workers(), paths.switches(), paths.pmds()});
  for (const auto& directory : directories) {
    std::error_code error;
    std::filesystem::remove_all(directory, error);
    if (error) drained.left.push_back(fmt::format("{}: {}", directory, error.message()));
  }
  if (!node_.options.programs.cgroupRoot.empty())
    for (auto& folder : removeOwnCgroup(node_.options.programs.cgroupRoot))
      drained.left.push_back(std::move(folder));
  for (const auto& what : drained.left) log::warn("drained, but left behind: {}", what);
  log::info("drained: {} processes ended", drained.ended.size());
  return drained;
}

// On a repeated drain the directories are already gone.
void Drain::endProcesses(Drained& drained) {
  const Paths& paths = node_.options.paths;
  const auto before = node_.switches.all();
  if (std::filesystem::exists(paths.switches())) {
    node_.switches.offer({});
    node_.switches.settle();
  }
  const auto after = node_.switches.all();
  for (const auto& [resource, vswitch] : before)
    (after.contains(resource) ? drained.left : drained.ended)
        .push_back("vdpa-switch of " + resource);
  if (std::filesystem::exists(paths.pmds())) {
    for (const auto& id : node_.backends.dpdk.stopOthers([](const std::string&) { return false; }))
      drained.ended.push_back("vdpa-pmd of " + id);
    for (const auto& entry : std::filesystem::directory_iterator(paths.pmds()))
      drained.left.push_back("vdpa-pmd of " + entry.path().filename().string());
  }
  if (!std::filesystem::exists(paths.workers())) return;
  for (const auto& id : workersBelow(paths)) {
    try {
      if (stopStray(paths.workerControl(id))) drained.ended.push_back("vdpa-worker of " + id);
    } catch (const std::exception& error) {
      drained.left.push_back(fmt::format("vdpa-worker of {}: {}", id, error.what()));
    }
  }
}

}  // namespace vdpa::datapath
