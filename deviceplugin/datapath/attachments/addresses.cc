// Sets the addresses of an attachment. The CNI plugin learns them from IPAM once the pod has the
// device.
#include <fmt/format.h>

#include <optional>
#include <string>

#include "common/atomic_file.h"
#include "common/log.h"
#include "common/rollback.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

LiveAttachment Attachments::setAddresses(const AttachmentKey& key, const PodAddresses& addresses) {
  const auto attached = [&](const DeviceTable::Device& device) {
    return device.record && device.record->phase == Phase::attached &&
           device.record->attachment.owner.key() == key;
  };
  std::string id;
  for (const auto& [name, device] : node_.table.all())
    if (attached(device)) id = name;
  const auto lease =
      id.empty() ? std::nullopt : node_.table.lease(id, Clock::now() + node_.options.timeout);
  const auto device = lease ? node_.table.find(id) : std::nullopt;
  if (!device || !attached(*device))
    throw RefusedError(Refusal::notFound,
                       fmt::format("interface {} of container {} has no attachment: it was "
                                   "detached during its setup",
                                   key.second, key.first));

  const OwnerRecord before = *device->record;
  OwnerRecord record = before;
  record.attachment.ips = addresses.ips;
  record.routes = addresses.routes;
  Backend& backend = node_.backends.of(record.device);
  // attach() may have left the wait to this call; a worker that died since its start is restarted.
  if (device->worker) waitWorker(*device->worker, record, backend, false);
  const std::string directory = node_.options.paths.device(id);
  Rollback rollback;
  rollback.add([&] { node_.records.write(before, Durability::memory); });
  node_.records.write(record, Durability::memory);
  node_.step("addresses recorded");
  rollback.add([&] {
    OwnerRecord restored = before;
    backend.setAddresses(restored, addresses);
  });
  backend.setAddresses(record, {before.attachment.ips, before.routes});
  node_.step("addresses set");
  if (record.routes != addresses.routes) node_.records.write(record, Durability::memory);
  rollback.add([&] { writeDeviceFiles(directory, before); });
  writeDeviceFiles(directory, record);
  node_.step("addresses published");
  node_.table.setAttachment(*lease, record, device->worker);
  rollback.commit();
  log::info("{} of {}: addresses {}", id, describeOwner(record.attachment.owner),
            fmt::join(addresses.ips, ", "));
  return node_.describe(record, device->worker);
}

}  // namespace vdpa::datapath
