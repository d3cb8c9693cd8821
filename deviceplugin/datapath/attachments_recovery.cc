// The start of vdpa-datapath: from the owner records and the processes that run to attachments.
#include <filesystem>

#include "common/log.h"
#include "deviceplugin/datapath/attachments.h"
#include "deviceplugin/datapath/device_directory.h"
#include "deviceplugin/datapath/device_files.h"
#include "deviceplugin/datapath/owner_check.h"

namespace vdpa {

void Attachments::recover() {
  makeDirectory(options_.paths.runDir(), 0700);
  makeDirectory(options_.paths.devices(), 0755);
  makeDirectory(options_.paths.workers(), 0700);

  std::map<std::string, std::vector<OwnerRecord>> byResource;
  std::map<std::string, bool> attached;
  for (auto& record : records_.load()) {
    const bool live = record.bootId == options_.bootId && record.phase == Phase::attached;
    attached[record.attachment.deviceId] = live;
    if (live)
      byResource[record.attachment.resource].push_back(std::move(record));
    else
      undoUnfinished(record);
  }
  for (const auto& entry : std::filesystem::directory_iterator(options_.paths.workers())) {
    const auto live = attached.find(entry.path().stem());
    if (live == attached.end() || !live->second) stopStray(entry.path());
  }
  backings_.dpdk.stopOthers([&](const std::string& id) {
    const auto live = attached.find(id);
    return live != attached.end() && live->second;
  });
  for (const auto& [resource, records] : byResource) {
    SwitchHandle::Ports ports;
    const OwnerRecord* ofPort = nullptr;
    for (const auto& record : records) {
      if (record.device.backend != Backend::software) continue;
      ports[record.attachment.deviceId] = record.attachment.port;
      if (!ofPort) ofPort = &record;
    }
    if (ofPort) switches_.start(resource, ofPort->software, std::move(ports));
    for (const auto& record : records) resume(record);
  }
}

void Attachments::resume(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  const DeviceDirectory directory(options_.paths, attachment.deviceId);
  directory.ensure();
  writeDeviceFiles(directory.path(), record);
  const auto engine = backings_.of(record.device).resume(record);
  table_.restore(record, engine ? std::make_shared<WorkerHandle>(options_.programs, options_.paths,
                                                                 record, *engine, onHealth_)
                                : nullptr);
  spdlog::info("{} is attached to {}", attachment.deviceId, describeOwner(attachment.owner));
}

void Attachments::undoUnfinished(const OwnerRecord& record) {
  const std::string& id = record.attachment.deviceId;
  spdlog::warn("undoing the attachment of {} to {}: {}", id, describeOwner(record.attachment.owner),
               record.bootId == options_.bootId ? "it was not finished" : "the node was restarted");
  stopStray(options_.paths.workerControl(id));
  // A port goes when its switch is met: one that isn't in the records is removed. The rest is
  // undone here, unless the restart of the node has done it.
  if (record.bootId == options_.bootId && record.device.backend != Backend::software) try {
      backings_.of(record.device).stop(record);
    } catch (const std::exception& error) {
      // Nobody else gets it before that is done: a Detach, or the next Attach, tries again.
      spdlog::error("{} stays with its owner: {}", id, error.what());
      OwnerRecord kept = record;
      kept.phase = Phase::detaching;
      return table_.restore(kept, nullptr);
    }
  DeviceDirectory(options_.paths, id).renew();
  records_.remove(id);
}

}  // namespace vdpa
