// The addresses of an attachment, which the CNI plugin learns from IPAM once the device is the
// pod's.
#include <fmt/format.h>

#include "common/log.h"
#include "common/rollback.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/pod_files/device_files.h"

namespace vdpa::datapath {

Attachments::Live Attachments::setAddresses(const AttachmentKey& key,
                                            const PodAddresses& addresses) {
  const auto attached = [&](const DeviceTable::Device& device) {
    return device.record && device.record->phase == Phase::attached &&
           device.record->attachment.owner.key() == key;
  };
  std::string id;
  for (const auto& [name, device] : table_.all())
    if (attached(device)) id = name;
  const auto lease = id.empty() ? std::nullopt : table_.lease(id, Clock::now() + options_.timeout);
  const auto device = lease ? table_.find(id) : std::nullopt;
  if (!device || !attached(*device))
    throw RefusedError(Refusal::notFound,
                       fmt::format("interface {} of container {} has no attachment: it was "
                                   "detached while it was set up",
                                   key.second, key.first));

  const OwnerRecord before = *device->record;
  OwnerRecord record = before;
  record.attachment.ips = addresses.ips;
  record.routes = addresses.routes;
  Backend& backend = backends_.of(record.device);
  // One that died since it was started comes again.
  if (device->worker && backend.followsFromRecord())
    waitWorker(*device->worker, record, backend, false);
  const std::string directory = options_.paths.device(id);
  Rollback rollback;
  rollback.add([&] { records_.write(before, Durability::memory); });
  records_.write(record, Durability::memory);
  step("addresses recorded");
  rollback.add([&] {
    OwnerRecord restored = before;
    backend.setAddresses(restored, addresses);
  });
  backend.setAddresses(record, {before.attachment.ips, before.routes});
  step("addresses set");
  if (record.routes != addresses.routes) records_.write(record, Durability::memory);
  rollback.add([&] { writeDeviceFiles(directory, before); });
  writeDeviceFiles(directory, record);
  step("addresses told");
  table_.setAttachment(*lease, record, device->worker);
  rollback.commit();
  log::info("{} of {}: addresses {}", id, describeOwner(record.attachment.owner),
            fmt::join(addresses.ips, ", "));
  return describe(record, device->worker);
}

}  // namespace vdpa::datapath
