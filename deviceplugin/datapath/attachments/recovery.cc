#include "deviceplugin/datapath/attachments/recovery.h"

#include <fmt/core.h>

#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/paths.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/processes/switch_handle.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

void Recovery::run() {
  makeDirectory(node_.options.paths.runDir(), 0700);
  auto loaded = node_.records.load();
  endEarlierBoot(loaded);
  makeDirectory(node_.options.paths.devices(), 0755);
  makeDirectory(node_.options.paths.workers(), 0700);

  std::set<std::string> inUse;
  for (const auto& [id, reason] : loaded.unreadable) {
    withhold(id, reason);
    inUse.insert(id);
  }
  std::vector<OwnerRecord> live;
  for (auto& record : loaded.records) {
    if (record.bootId != node_.options.bootId || record.phase != Phase::attached) {
      undoUnfinished(std::move(record));
      continue;
    }
    inUse.insert(record.attachment.deviceId);
    live.push_back(std::move(record));
  }
  stopOthers(inUse);
  startSwitches(live);
  for (const auto& record : live) resume(record);
}

// A power cut can leave a record unreadable that was changed shortly before; but after it, no pod
// has the device. The boot marker shows whether the node was restarted. Without a marker, the run
// directory is new, or is an earlier version's: then it has the workers' directory.
void Recovery::endEarlierBoot(OwnerRecordStore::Loaded& loaded) {
  const Paths& paths = node_.options.paths;
  const std::string marker = paths.bootMarker();
  const bool marked = std::filesystem::exists(marker);
  if (marked && readFile(marker) == node_.options.bootId) return;
  const bool restarted = marked || !std::filesystem::exists(paths.workers());
  if (restarted)
    std::erase_if(loaded.unreadable, [&](const auto& entry) {
      const auto& [id, reason] = entry;
      try {
        DeviceDirectory(paths, id).remove();
        node_.records.removeUnreadable(id);
        log::warn("{} is free: the owner record {}; it was removed, as the node was restarted", id,
                  reason);
        return true;
      } catch (const std::exception& error) {
        log::error("{}", error.what());
        return false;
      }
    });
  // From here on, unreadable records are of this boot. A missing marker proves nothing.
  std::filesystem::remove(marker);
  try {
    writeFileAtomically(marker, node_.options.bootId, Durability::memory, 0600);
  } catch (const std::exception& error) {  // on a full disk, running processes are still adopted
    log::error("{}", withRemedy(error));
  }
}

// If one can't be stopped now, the next Attach of its device tries again.
void Recovery::stopOthers(const std::set<std::string>& inUse) {
  for (const auto& id : workersBelow(node_.options.paths)) {
    if (inUse.contains(id)) continue;
    try {
      stopStray(node_.options.paths.workerControl(id));
    } catch (const std::exception& error) {
      log::error("{}", error.what());
    }
  }
  node_.backends.dpdk.stopOthers([&](const std::string& id) { return inUse.contains(id); });
}

// Nothing is guessed: the device's processes keep running for the unknown owner, and no other pod
// gets the device.
void Recovery::withhold(const std::string& id, const std::string& reason) {
  const std::string error = fmt::format(
      "the owner record {}; a pod may still have the device: start the version that wrote the "
      "record or, once no pod has it, run `vdpactl detach --force {}`",
      reason, id);
  log::warn("{} is withheld: {}", id, error);
  node_.table.withhold(id, error);
}

void Recovery::startSwitches(const std::vector<OwnerRecord>& live) {
  std::map<std::string, std::vector<const OwnerRecord*>> byResource;
  for (const auto& record : live)
    if (record.device.backend == BackendKind::software)
      byResource[record.attachment.resource].push_back(&record);
  for (const auto& [resource, records] : byResource) {
    SwitchHandle::Ports ports;
    for (const auto* record : records)
      ports[record->attachment.deviceId] = {record->attachment.port, record->policy};
    node_.switches.start(resource, records.front()->software, std::move(ports));
  }
}

void Recovery::resume(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  std::optional<EngineAddress> engine;
  try {
    const DeviceDirectory directory(node_.options.paths, attachment.deviceId);
    directory.ensure();
    writeDeviceFiles(directory.path(), record);
  } catch (const std::exception& error) {
    // On a full disk the pod keeps its earlier files.
    log::error("{} of {}: {}", attachment.deviceId, describeOwner(attachment.owner), error.what());
  }
  try {
    Backend& backend = node_.backends.of(record.device);
    backend.resume(record);
    engine = backend.engine(record);
  } catch (const std::exception& error) {  // the other pods' devices are resumed all the same
    log::error("cannot resume serving {}: {}", attachment.deviceId, error.what());
  }
  node_.table.restore(
      record, engine ? std::make_shared<WorkerHandle>(node_.supervision, node_.options.programs,
                                                      node_.options.paths, record, *engine,
                                                      WorkerHandle::Begin::takeOver, node_.onHealth)
                     : nullptr);
  log::info("{} is attached to {}", attachment.deviceId, describeOwner(attachment.owner));
}

void Recovery::undoUnfinished(OwnerRecord record) {
  const std::string& id = record.attachment.deviceId;
  const bool sameBoot = record.bootId == node_.options.bootId;
  log::warn("undoing the attachment of {} to {}: {}", id, describeOwner(record.attachment.owner),
            sameBoot ? "it was not finished" : "the node was restarted");
  try {
    stopStray(node_.options.paths.workerControl(id));
    // A port without a record is removed when its switch is adopted. The rest is undone here,
    // unless a restart of the node has already done it.
    if (sameBoot && record.device.backend != BackendKind::software) {
      node_.backends.of(record.device).stop(record);
      node_.changes.restore(record);
    }
    DeviceDirectory(node_.options.paths, id).renew();
    node_.step("directory emptied");
    node_.records.remove(id);
  } catch (const std::exception& error) {
    // No other pod gets the device until a retry succeeds.
    log::error("{} stays with its owner: {}", id, error.what());
    record.phase = Phase::detaching;
    node_.table.restore(record, nullptr, error.what());
  }
}

}  // namespace vdpa::datapath
