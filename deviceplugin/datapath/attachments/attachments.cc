#include "deviceplugin/datapath/attachments/attachments.h"

#include <fmt/core.h>

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/log.h"
#include "common/rollback.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/interface_claim.h"
#include "deviceplugin/datapath/attachments/mac_registry.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
LiveAttachment Attachments::attach(const AttachRequest& request,
                                   const std::function<bool()>& cancelled) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  const Call call{request, Clock::now() + node_.options.timeout,
                  [&] { return cancelled() || node_.table.calledOff(owner.key()); }};
  const InterfaceClaim claim(node_.table, owner, id);
  MacRegistry::Claim mac(node_.macs, owner);
  Rollback afterLease;  // has a device that was remade for the network get its own attributes back
  afterLease.add([&] { node_.provisioner.wake(); });
  Taken taken = takeDevice(call);
  const DeviceTable::Lease& lease = taken.lease;
  Backend& backend = node_.backends.of(taken.offer.device);
  OwnerRecord record = prepare(call, std::move(taken.offer), mac);
  Attachment& attachment = record.attachment;

  std::shared_ptr<WorkerHandle> worker;
  Rollback rollback;  // declared after everything that it uses
  rollback.add([&] { node_.records.remove(id); });
  node_.records.write(record, Durability::whole);
  // From here on, a failure is undone as by a Detach: if undoing fails, the attachment stays and
  // undoing is retried.
  rollback.commit();
  rollback.add([&] {
    node_.table.setAttachment(lease, record, worker);
    undo(lease);
  });
  node_.step("recorded");
  const DeviceDirectory directory(node_.options.paths, id);
  directory.renew();
  node_.step("directory");
  node_.changes.apply(record);  // before any process opens the device
  node_.step("settings");
  backend.start(record);
  node_.step("engine");
  if (const auto engine = backend.engine(record))
    worker = std::make_shared<WorkerHandle>(node_.supervision, node_.options.programs,
                                            node_.options.paths, record, *engine,
                                            WorkerHandle::Begin::start, node_.onHealth);
  node_.step("worker started");
  backend.addPort(record);
  node_.step("port");
  // The worker of a switch's port reports nothing that the record lacks: it starts while IPAM runs,
  // and setAddresses() waits for it and writes the files.
  if (!request.addressesFollow || record.device.backend != BackendKind::software) {
    if (worker) waitWorker(*worker, record, backend, true);
    if (!attachment.port.mac) attachment.port.mac = mac.choose(std::nullopt);
    node_.step("worker");
    writeDeviceFiles(directory.path(), record);
    node_.step("files");
  }
  record.phase = Phase::attached;
  node_.records.write(record, Durability::memory);
  node_.step("attached");
  if (call.calledOff())
    throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
  node_.table.setAttachment(lease, record, worker);
  rollback.commit();
  afterLease.commit();
  log::info("attached {} to {}", id, describeOwner(owner));
  return node_.describe(record, worker);
}

// The worker has opened the device: what it reports replaces what was known before.
void Attachments::waitWorker(WorkerHandle& worker, OwnerRecord& record, Backend& backend,
                             bool once) {
  Attachment& attachment = record.attachment;
  try {
    worker.waitReady(Clock::now() + node_.options.timeout, once);
  } catch (const std::exception& error) {
    if (once) {  // else the device has worked before: its worker failed, not the device
      backend.startFailed(attachment.deviceId, error.what());
      node_.onHealth();
    }
    throw;
  }
  const auto facts = worker.facts();
  if (!record.macAsked && facts.mac) attachment.port.mac = facts.mac;
  completeSettings(attachment.deviceId, attachment.port, facts.mac, facts.mtu);
  if (facts.queuePairs > 0) attachment.queuePairs = facts.queuePairs;
}

void Attachments::shutdown() {
  node_.table.shutdown();
}

}  // namespace vdpa::datapath
