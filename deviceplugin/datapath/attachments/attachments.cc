#include "deviceplugin/datapath/attachments/attachments.h"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/log.h"
#include "common/naming.h"
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
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
LiveAttachment Attachments::attach(const AttachRequest& request,
                                   const std::function<bool()>& cancelled) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  checkOwner(owner);
  const auto deadline = Clock::now() + node_.options.timeout;
  const auto calledOff = [&] { return cancelled() || node_.table.calledOff(owner.key()); };
  const InterfaceClaim claim(node_.table, owner, id);
  MacRegistry::Claim mac(node_.macs, owner);
  auto offer = node_.table.waitOffer(id, deadline, owner.key());
  Backend& backend = node_.backends.of(offer.device);
  backend.resolve(id, offer, request.settings);  // an impossible request must have no effect

  Rollback afterLease;  // has a device that was remade for the network get its own attributes back
  afterLease.add([&] { node_.provisioner.wake(); });
  const DeviceTable::Lease lease = takeDevice(request, deadline, calledOff);
  stopStray(node_.options.paths.workerControl(id));  // in case recovery could not stop it
  offer = prepareOwn(id, offer, deadline, calledOff);

  OwnerRecord record;
  record.bootId = node_.options.bootId;
  record.netns = namespaceAt(owner.netns);
  if (record.netns == NamespaceId{})
    log::warn("{}: cannot see the network namespace {}: its end will not be noticed", id,
              owner.netns);
  record.socket = offer.socket;
  record.software = offer.software;
  record.device = offer.device;
  record.routes = request.routes;
  Attachment& attachment = record.attachment;
  attachment.deviceId = id;
  attachment.resource = offer.resource;
  attachment.owner = owner;
  attachment.port = backend.resolve(id, offer, request.settings);
  // A device whose MAC can't be set keeps its own.
  record.macAsked = !attachment.port.mac.empty();
  attachment.port.mac = mac.choose(attachment.port.mac);
  prepareFor(record, request.settings, mac, deadline, calledOff);
  attachment.socket = podSocket(id);
  attachment.queuePairs = offer.device.backend == BackendKind::software ? offer.software.queuePairs
                                                                        : offer.device.queuePairs;
  attachment.queuePairs = std::max(1u, attachment.queuePairs);
  attachment.ips = request.ips;
  attachment.created = std::time(nullptr);
  backend.complete(record);

  const DeviceDirectory directory(node_.options.paths, id);
  std::shared_ptr<WorkerHandle> worker;
  const auto startWorker = [&] {
    if (const auto engine = backend.engine(record))
      worker = std::make_shared<WorkerHandle>(node_.supervision, node_.options.programs,
                                              node_.options.paths, record, *engine,
                                              WorkerHandle::Begin::start, node_.onHealth);
  };
  Rollback rollback;  // declared after everything that it uses
  rollback.add([&] {
    if (worker) worker->stop();
  });
  if (backend.followsFromRecord()) {
    record.phase = Phase::attached;
    // Starting the worker takes longest, so the rest is done meanwhile. If we die before the record
    // is written, our next start ends the worker.
    startWorker();
  }
  node_.step("worker started");
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
  directory.renew();
  node_.step("directory");
  node_.changes.apply(record);  // before any process opens the device
  node_.step("settings");
  backend.start(record);
  node_.step("engine");
  if (!backend.followsFromRecord()) startWorker();
  // Without waiting for the worker there is nothing new to record.
  if (!request.addressesFollow || !backend.followsFromRecord()) {
    const auto recorded = std::pair(attachment.port, attachment.queuePairs);
    if (worker) waitWorker(*worker, record, backend, true);
    if (attachment.port.mac.empty()) attachment.port.mac = mac.choose("");
    node_.step("worker");
    if (std::exchange(record.phase, Phase::attached) != Phase::attached ||
        std::pair(attachment.port, attachment.queuePairs) != recorded)
      node_.records.write(record, Durability::memory);
    node_.step("attached");
    writeDeviceFiles(directory.path(), record);
    node_.step("files");
  }
  if (calledOff())
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
    backend.startFailed(attachment.deviceId, error.what());
    node_.onHealth();
    throw;
  }
  const auto facts = worker.facts();
  if (!record.macAsked && !facts.mac.empty()) attachment.port.mac = facts.mac;
  completeSettings(attachment.deviceId, attachment.port, facts.mac, facts.mtu);
  if (facts.queuePairs > 0) attachment.queuePairs = facts.queuePairs;
}

void Attachments::shutdown() {
  node_.table.shutdown();
}

}  // namespace vdpa::datapath
