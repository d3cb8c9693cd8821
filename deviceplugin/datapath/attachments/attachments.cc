// See the header.
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>

#include "common/log.h"
#include "common/naming.h"
#include "common/rollback.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether an owner has gone.
constexpr auto kPollInterval = 250ms;

}  // namespace

Attachments::Attachments(Options options, std::function<void()> onHealth)
    : options_(std::move(options)),
      onHealth_(std::move(onHealth)),
      records_(options_.paths.owners()),
      orphans_(options_.releaseAfter),
      switches_(options_.programs, options_.paths,
                {.unknown =
                     [this](const std::string& id) {
                       const auto device = table_.find(id);
                       return device && device->withheld();
                     },
                 .name =
                     [this](const std::string& id) {
                       const auto device = table_.find(id);
                       return device && device->record
                                  ? describeOwner(device->record->attachment.owner)
                                  : std::string("nobody that is known");
                     },
                 .unallocated =
                     [this](const std::string& id, std::chrono::milliseconds timeout) {
                       const auto device = table_.find(id);
                       return device && device->worker ? device->worker->unallocated(timeout) : 0;
                     }},
                onHealth_),
      bus_(options_.programs.sysfs, options_.programs.dev),
      provisioner_(
          {options_.programs.sysfs, options_.paths.provisioned(), options_.bootId, options_.addVdpa,
           options_.removeVdpa, options_.hardware ? options_.hardware->vdpaMtu : options_.vdpaMtu,
           [this](const std::string& id) { return table_.inUse(id); }, onHealth_},
          bus_),
      backends_(switches_, bus_, provisioner_, options_.programs, options_.paths, onHealth_),
      changes_(options_.hardware
                   ? *options_.hardware
                   : HardwareChanges::kernels(options_.programs.sysfs, options_.vdpaMac,
                                              options_.setVdpaMac, options_.vdpaMtu)) {
  recover();
}

Attachments::~Attachments() = default;

void Attachments::setDevices(const std::vector<Resource>& resources) {
  checkDeviceSet(resources);
  checkSocketPaths(resources, options_.paths);
  std::lock_guard setting(settingDevices_);
  std::map<std::string, OfferedDevice> offers;
  Provisioner::Devices provisioned;
  for (const auto& resource : resources) {
    for (const auto& [id, device] : resource.devices) {
      offers[id] = {resource.name, resource.socket, resource.software, device};
      if (device.provision) provisioned[id] = device;
    }
  }
  if (table_.closed()) {  // told, so that they can be shown with the reason
    table_.setOffers(offers);
    return;
  }
  for (const auto& [id, offer] : offers) DeviceDirectory(options_.paths, id).ensure();
  switches_.offer(resources);
  for (const auto& id : table_.setOffers(offers)) DeviceDirectory(options_.paths, id).remove();
  removeDirectoriesExcept(options_.paths,
                          [this](const std::string& id) { return table_.find(id).has_value(); });
  provisioner_.want(std::move(provisioned));
  log::info("{} devices of {} resources", offers.size(), resources.size());
}

Attachments::Live Attachments::attach(const AttachRequest& request,
                                      const std::function<bool()>& cancelled) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  checkOwner(owner);
  const auto deadline = Clock::now() + options_.timeout;
  const auto calledOff = [&] { return cancelled() || table_.calledOff(owner.key()); };
  DeviceTable::Reservation reservation(table_, owner, id);
  auto offer = table_.waitOffer(id, deadline, owner.key());
  Backend& backend = backends_.of(offer.device);
  backend.resolve(id, offer, request.settings);  // refused before anything else is done

  Rollback afterLease;  // a device that was remade for the network gets its own attributes again
  afterLease.add([&] { provisioner_.wake(); });
  const DeviceTable::Lease lease = takeDevice(request, deadline, calledOff);
  stopStray(options_.paths.workerControl(id));  // one that the start could not stop is not ours
  offer = prepareOwn(id, offer, deadline, calledOff);

  OwnerRecord record;
  record.bootId = options_.bootId;
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
  // A device that can't be given one keeps its own.
  record.macAsked = !attachment.port.mac.empty();
  attachment.port.mac = reservation.takeMac(attachment.port.mac);
  prepareFor(record, request.settings, reservation, deadline, calledOff);
  attachment.socket = podSocket(id);
  attachment.queuePairs = offer.device.backend == BackendKind::software ? offer.software.queuePairs
                                                                        : offer.device.queuePairs;
  attachment.queuePairs = std::max(1u, attachment.queuePairs);
  attachment.ips = request.ips;
  attachment.created = std::time(nullptr);
  backend.complete(record);

  const DeviceDirectory directory(options_.paths, id);
  std::shared_ptr<WorkerHandle> worker;
  const auto startWorker = [&] {
    if (const auto engine = backend.engine(record))
      worker = std::make_shared<WorkerHandle>(options_.programs, options_.paths, record, *engine,
                                              WorkerHandle::Begin::start, onHealth_);
  };
  Rollback rollback;  // after everything that it uses
  rollback.add([&] {
    if (worker) worker->stop();
  });
  if (backend.followsFromRecord()) {
    record.phase = Phase::attached;
    // Its start takes longer than all the rest, which is done meanwhile. Should we die before the
    // record is written, the next start of ours ends it.
    startWorker();
  }
  step("worker started");
  rollback.add([&] { records_.remove(id); });
  records_.write(record, Durability::whole);
  // From here on it is undone as by a Detach: what can't be undone at once stays, and is tried
  // again.
  rollback.commit();
  rollback.add([&] {
    table_.setAttachment(lease, record, worker);
    undo(lease);
  });
  step("recorded");
  directory.renew();
  step("directory");
  changes_.apply(record);  // before anybody opens the device
  step("settings");
  backend.start(record);
  step("engine");
  if (!backend.followsFromRecord()) startWorker();
  // A worker that isn't waited for has nothing to say that would be news.
  if (!request.addressesFollow || !backend.followsFromRecord()) {
    const auto recorded = std::pair(attachment.port, attachment.queuePairs);
    if (worker) waitWorker(*worker, record, backend, true);
    if (attachment.port.mac.empty()) attachment.port.mac = reservation.takeMac("");
    step("worker");
    if (std::exchange(record.phase, Phase::attached) != Phase::attached ||
        std::pair(attachment.port, attachment.queuePairs) != recorded)
      records_.write(record, Durability::memory);
    step("attached");
    writeDeviceFiles(directory.path(), record);
    step("files");
  }
  if (calledOff())
    throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
  table_.setAttachment(lease, record, worker);
  rollback.commit();
  afterLease.commit();
  log::info("attached {} to {}", id, describeOwner(owner));
  return describe(record, worker);
}

// The worker has opened the device and knows it better than anybody before.
void Attachments::waitWorker(WorkerHandle& worker, OwnerRecord& record, Backend& backend,
                             bool once) {
  Attachment& attachment = record.attachment;
  try {
    worker.waitReady(Clock::now() + options_.timeout, once);
  } catch (const std::exception& error) {
    backend.startFailed(attachment.deviceId, error.what());
    onHealth_();
    throw;
  }
  const auto facts = worker.facts();
  if (!record.macAsked && !facts.mac.empty()) attachment.port.mac = facts.mac;
  completeSettings(attachment.deviceId, attachment.port, facts.mac, facts.mtu);
  if (facts.queuePairs > 0) attachment.queuePairs = facts.queuePairs;
}

// The lease of a device without an owner, if need be after undoing what an owner left.
DeviceTable::Lease Attachments::takeDevice(const AttachRequest& request, Clock::time_point deadline,
                                           const std::function<bool()>& calledOff) {
  const std::string& id = request.deviceId;
  for (;;) {
    std::string holder;
    if (auto lease = table_.lease(id, deadline)) {
      const auto device = table_.find(id);
      if (device->withheld())
        throw RefusedError(Refusal::aborted,
                           fmt::format("cannot attach {}: {}", id, device->error));
      if (!device->record) return std::move(*lease);
      if (mayTakeOver(*device->record, request.owner)) {
        undo(*lease);
        continue;  // it may have left the set, and was kept for its owner alone
      }
      holder = describeOwner(device->record->attachment.owner);
    } else if (!table_.find(id)) {
      throw RefusedError(Refusal::notFound, fmt::format("device {} has just left this node", id));
    }
    if (table_.waitFree(id, std::min(deadline, Clock::now() + kPollInterval), request.owner.key()))
      continue;
    if (calledOff())
      throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
    if (Clock::now() < deadline) continue;
    if (holder.empty())
      throw RefusedError(
          Refusal::aborted,
          fmt::format("device {} is being attached or detached by another call", id));
    throw RefusedError(Refusal::aborted,
                       fmt::format("device {} is held by {}, whose network namespace still exists; "
                                   "it is taken over once that pod is gone",
                                   id, holder));
  }
}

bool Attachments::mayTakeOver(const OwnerRecord& record, const Owner& requester) {
  const Owner& owner = record.attachment.owner;
  const std::string& id = record.attachment.deviceId;
  if (record.phase == Phase::detaching) return true;  // let go already, but not undone whole
  if (namespaceGone(owner.netns, record.netns)) {
    log::warn("taking {} from {}, whose network namespace is gone", id, describeOwner(owner));
    return true;
  }
  // Two interfaces of one container that want the same device: the first one keeps it.
  if (requester.podName.empty() || owner.containerId == requester.containerId) return false;
  // The character device can't be taken from a pod that runs on.
  if (record.device.attach == Attach::vhostVdpa) return false;
  try {
    for (const auto& held : options_.listPodDevices()) {
      if (held.deviceId != id || held.resource != record.attachment.resource ||
          held.podNamespace != requester.podNamespace || held.podName != requester.podName)
        continue;
      log::warn("taking {} from {}, since the kubelet gave it to {}/{}", id, describeOwner(owner),
                requester.podNamespace, requester.podName);
      return true;
    }
  } catch (const std::exception& error) {
    log::warn("{}", error.what());
  }
  return false;
}

void Attachments::retryFailed() {
  bool well = false;
  if (table_.closed()) return;
  for (const auto& [id, device] : table_.all()) {
    if (!device.offer || device.record) continue;
    const BackendKind backend = device.offer->device.backend;
    if ((backend == BackendKind::kernel && backends_.kernel.due(id)) ||
        (backend == BackendKind::dpdk && backends_.dpdk.due(id)))
      well = retryFailed(id) || well;
  }
  if (well) onHealth_();
}

// With the lease: an Attach would start a second process for the device, or find it open.
bool Attachments::retryFailed(const std::string& id) {
  const auto lease = table_.lease(id, Clock::now());
  const auto device = table_.find(id);
  if (!lease || !device || !device->offer || device->record || device->withheld()) return false;
  if (device->offer->device.backend == BackendKind::kernel)
    return backends_.kernel.retry(id, *device->offer);
  return backends_.dpdk.retry(id, *device->offer);
}

void Attachments::shutdown() {
  table_.shutdown();
}

void Attachments::step(std::string_view name) {
  if (options_.onStep) options_.onStep(name);
}

}  // namespace vdpa::datapath
