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
  for (const auto& [resource, records] : byResource) {
    SwitchHandle::Ports ports;
    for (const auto& record : records) ports[record.attachment.deviceId] = record.attachment.port;
    switches_.start(resource, records.front().software, std::move(ports));
    for (const auto& record : records) resume(record);
  }
}

void Attachments::resume(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  const DeviceDirectory directory(options_.paths, attachment.deviceId);
  directory.ensure();
  writeDeviceFiles(directory.path(), attachment);
  const auto vswitch = switches_.find(attachment.resource);
  table_.restore(record, std::make_shared<WorkerHandle>(options_.programs, options_.paths, record,
                                                        vswitch->portSocket(attachment.deviceId)));
  spdlog::info("{} is attached to {}", attachment.deviceId, describeOwner(attachment.owner));
}

// Its port goes when its switch is met: one that isn't in the records is removed.
void Attachments::undoUnfinished(const OwnerRecord& record) {
  const std::string& id = record.attachment.deviceId;
  spdlog::warn("undoing the attachment of {} to {}: {}", id, describeOwner(record.attachment.owner),
               record.bootId == options_.bootId ? "it was not finished" : "the node was restarted");
  stopStray(options_.paths.workerControl(id));
  DeviceDirectory(options_.paths, id).renew();
  records_.remove(id);
}

}  // namespace vdpa
