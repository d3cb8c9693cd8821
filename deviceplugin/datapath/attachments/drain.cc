// The end of everything that serves devices, for a node that vdpa-datapath is removed from.
#include <fmt/format.h>

#include <filesystem>

#include "common/log.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/cgroup.h"

namespace vdpa::datapath {
namespace {

// A driver takes seconds to give a function back.
constexpr auto kUndoTime = std::chrono::seconds(20);

}  // namespace

Attachments::Drained Attachments::drain() {
  std::lock_guard setting(settingDevices_);
  if (const auto holders = table_.close(); !holders.empty())
    throw RefusedError(Refusal::inUse,
                       fmt::format("pods still have devices of this node: {}; delete them, or move "
                                   "them to other nodes, and drain again",
                                   fmt::join(holders, ", ")));
  log::info("draining: no pod has a device, and none gets one until the next start");
  onHealth_();
  Drained drained;
  endProcesses(drained);
  const bool allEnded = drained.left.empty();

  provisioner_.want({});
  for (const auto& id : provisioner_.waitUndone(Clock::now() + kUndoTime))
    drained.left.push_back(fmt::format(
        "the vDPA device that was made for {}: the log of vdpa-datapath has the reason", id));
  const Paths& paths = options_.paths;
  std::vector<std::string> directories = {paths.devices()};
  if (allEnded)  // or what runs on could not be found any more
    directories.insert(directories.end(), {paths.workers(), paths.switches(), paths.pmds()});
  for (const auto& directory : directories) {
    std::error_code error;
    std::filesystem::remove_all(directory, error);
    if (error) drained.left.push_back(fmt::format("{}: {}", directory, error.message()));
  }
  if (!options_.programs.cgroupRoot.empty())
    for (auto& folder : removeOwnCgroup(options_.programs.cgroupRoot))
      drained.left.push_back(std::move(folder));
  for (const auto& what : drained.left) log::warn("drained, but this stays: {}", what);
  log::info("drained: {} processes ended", drained.ended.size());
  return drained;
}

// The directories are gone when this isn't the first time.
void Attachments::endProcesses(Drained& drained) {
  const Paths& paths = options_.paths;
  const auto before = switches_.all();
  if (std::filesystem::exists(paths.switches())) switches_.offer({});
  const auto after = switches_.all();
  for (const auto& [resource, vswitch] : before)
    (after.contains(resource) ? drained.left : drained.ended)
        .push_back("vdpa-switch of " + resource);
  if (std::filesystem::exists(paths.pmds())) {
    for (const auto& id : backends_.dpdk.stopOthers([](const std::string&) { return false; }))
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
