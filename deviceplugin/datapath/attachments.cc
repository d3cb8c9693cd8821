// See the header.
#include "deviceplugin/datapath/attachments.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "common/log.h"
#include "common/naming.h"
#include "deviceplugin/datapath/device_directory.h"
#include "deviceplugin/datapath/device_files.h"
#include "deviceplugin/datapath/hardware_settings.h"
#include "deviceplugin/datapath/owner_check.h"
#include "deviceplugin/datapath/refused_error.h"
#include "deviceplugin/datapath/rollback.h"

namespace vdpa {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether an owner has gone.
constexpr auto kLook = 250ms;

}  // namespace

Attachments::Attachments(Options options, std::function<void()> onHealth)
    : options_(std::move(options)),
      onHealth_(std::move(onHealth)),
      records_(options_.paths.owners()),
      switches_(options_.programs, options_.paths, onHealth_),
      bus_(options_.programs.sysfs, options_.programs.dev),
      provisioner_({options_.programs.sysfs, options_.paths.provisioned(), options_.bootId,
                    options_.addVdpa, options_.removeVdpa,
                    [this](const std::string& id) {
                      const auto device = table_.find(id);
                      return device && device->record;
                    },
                    onHealth_},
                   bus_),
      backings_(switches_, bus_, provisioner_, options_.programs, options_.paths, onHealth_) {
  recover();
}

Attachments::~Attachments() = default;

void Attachments::setDevices(const std::vector<Resource>& resources) {
  checkDeviceSet(resources);
  std::lock_guard setting(settingDevices_);
  std::map<std::string, DeviceTable::Offer> offers;
  Provisioner::Devices provisioned;
  for (const auto& resource : resources) {
    for (const auto& [id, device] : resource.devices) {
      offers[id] = {resource.name, resource.socket, resource.software, device};
      if (device.provision) provisioned[id] = device;
    }
  }
  for (const auto& [id, offer] : offers) DeviceDirectory(options_.paths, id).ensure();
  switches_.offer(resources);
  for (const auto& id : table_.setOffers(offers)) DeviceDirectory(options_.paths, id).remove();
  removeDirectoriesExcept(options_.paths,
                          [this](const std::string& id) { return table_.find(id).has_value(); });
  provisioner_.want(std::move(provisioned));
  spdlog::info("{} devices of {} resources", offers.size(), resources.size());
}

Attachments::Live Attachments::attach(const AttachRequest& request,
                                      const std::function<bool()>& cancelled) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  checkOwner(owner);
  const auto deadline = Clock::now() + options_.patience;
  DeviceTable::Reservation reservation(table_, owner, id);
  auto offer = table_.waitOffer(id, deadline, owner.key());
  Backing& backing = backings_.of(offer.device);
  backing.settle(id, offer, request.settings);  // refused before anything else is done

  const DeviceTable::Lease lease = takeDevice(request, deadline);
  offer = backing.prepare(id, offer, deadline, [&] { return table_.calledOff(owner.key()); });

  OwnerRecord record;
  record.bootId = options_.bootId;
  record.netns = namespaceAt(owner.netns);
  if (record.netns == NamespaceId{})
    spdlog::warn("{}: cannot see the network namespace {}: its end will not be noticed", id,
                 owner.netns);
  record.socket = offer.socket;
  record.software = offer.software;
  record.device = offer.device;
  record.routes = request.routes;
  Attachment& attachment = record.attachment;
  attachment.deviceId = id;
  attachment.resource = offer.resource;
  attachment.owner = owner;
  attachment.port = backing.settle(id, offer, request.settings);
  // A device of hardware has an address of its own, which its worker tells.
  const bool ownMac = attachment.port.mac.empty() && offer.device.backend == Backend::kernel;
  if (!ownMac) attachment.port.mac = reservation.takeMac(attachment.port.mac);
  attachment.socket = podSocket(id);
  attachment.queuePairs = offer.device.backend == Backend::software ? offer.software.queuePairs
                                                                    : offer.device.queuePairs;
  attachment.queuePairs = std::max(1u, attachment.queuePairs);
  attachment.ips = request.ips;
  attachment.created = std::time(nullptr);
  backing.complete(record);

  const DeviceDirectory directory(options_.paths, id);
  std::shared_ptr<WorkerHandle> worker;
  Rollback rollback;  // after everything that it uses
  rollback.add([&] { records_.remove(id); });
  records_.write(record, Durability::disk);
  step("recorded");
  rollback.add([&] { directory.renew(); });
  directory.renew();
  step("directory");
  rollback.add([&] { backing.stop(record); });
  const auto engine = backing.start(record);
  step("engine");
  rollback.add([&] {
    if (worker) worker->stop();
  });
  if (engine) {
    worker = std::make_shared<WorkerHandle>(options_.programs, options_.paths, record, *engine,
                                            onHealth_);
    waitWorker(*worker, record, backing);
  }
  if (ownMac && attachment.port.mac.empty()) attachment.port.mac = reservation.takeMac("");
  step("worker");
  writeDeviceFiles(directory.path(), record);
  step("files");
  if (cancelled() || table_.calledOff(owner.key()))
    throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
  record.phase = Phase::attached;
  records_.write(record, Durability::memory);
  step("attached");
  table_.setAttachment(lease, record, worker);
  rollback.commit();
  spdlog::info("attached {} to {}", id, describeOwner(owner));
  return describe(record, worker);
}

// The worker has opened the device and knows it better than anybody before.
void Attachments::waitWorker(WorkerHandle& worker, OwnerRecord& record, Backing& backing) {
  Attachment& attachment = record.attachment;
  try {
    worker.waitReady(Clock::now() + options_.patience);
  } catch (const std::exception& error) {
    backing.startFailed(attachment.deviceId, error.what());
    onHealth_();
    throw;
  }
  const auto facts = worker.facts();
  completeSettings(attachment.deviceId, attachment.port, facts.mac, facts.mtu);
  if (facts.queuePairs > 0) attachment.queuePairs = facts.queuePairs;
}

// The lease of a device without an owner, if need be after undoing what an owner left.
DeviceTable::Lease Attachments::takeDevice(const AttachRequest& request,
                                           Clock::time_point deadline) {
  const std::string& id = request.deviceId;
  for (;;) {
    std::string holder;
    if (auto lease = table_.lease(id, deadline)) {
      const auto device = table_.find(id);
      if (!device->record) return std::move(*lease);
      if (mayTakeOver(*device->record, request.owner)) {
        undo(*lease);
        if (table_.find(id)) return std::move(*lease);
        continue;  // it had left the set, and was kept for its owner alone
      }
      holder = describeOwner(device->record->attachment.owner);
    } else if (!table_.find(id)) {
      throw RefusedError(Refusal::notFound, fmt::format("device {} has just left this node", id));
    }
    if (table_.waitFree(id, std::min(deadline, Clock::now() + kLook), request.owner.key()))
      continue;
    if (table_.calledOff(request.owner.key()))
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
  if (namespaceGone(owner.netns, record.netns)) {
    spdlog::warn("taking {} from {}, whose network namespace is gone", id, describeOwner(owner));
    return true;
  }
  // Two interfaces of one container that want the same device: the first one keeps it.
  if (requester.podName.empty() || owner.containerId == requester.containerId) return false;
  try {
    for (const auto& held : options_.listPodDevices()) {
      if (held.deviceId != id || held.resource != record.attachment.resource ||
          held.podNamespace != requester.podNamespace || held.podName != requester.podName)
        continue;
      spdlog::warn("taking {} from {}, since the kubelet gave it to {}/{}", id,
                   describeOwner(owner), requester.podNamespace, requester.podName);
      return true;
    }
  } catch (const std::exception& error) {
    spdlog::warn("{}", error.what());
  }
  return false;
}

bool Attachments::detach(const AttachmentKey& key) {
  const auto lease = table_.leaseAttached(key);
  if (!lease) return false;
  undo(*lease);
  return true;
}

// From attached to free. Every step can be done again: what fails is tried again by the next call.
void Attachments::undo(const DeviceTable::Lease& lease) {
  const std::string& id = lease.id();
  auto device = table_.find(id);
  OwnerRecord record = *device->record;
  record.phase = Phase::detaching;
  records_.write(record, Durability::memory);
  step("detaching");
  if (device->worker) device->worker->stop();
  step("worker stopped");
  backings_.of(record.device).stop(record);
  step("engine stopped");
  DeviceDirectory(options_.paths, id).renew();
  step("directory emptied");
  records_.remove(id);
  step("record removed");
  if (table_.clearAttachment(lease)) DeviceDirectory(options_.paths, id).remove();
  device.reset();
  switches_.collect();
  provisioner_.wake();
  spdlog::info("detached {} from {}", id, describeOwner(record.attachment.owner));
}

void Attachments::releaseAbandoned() {
  std::vector<AttachmentKey> gone;
  for (const auto& [id, device] : table_.all()) {
    if (!device.record) continue;
    const Owner& owner = device.record->attachment.owner;
    if (!namespaceGone(owner.netns, device.record->netns)) continue;
    const auto held = options_.listPodDevices();
    const bool listed = std::any_of(held.begin(), held.end(), [&, &id = id](const PodDevice& pod) {
      return pod.deviceId == id && pod.podNamespace == owner.podNamespace &&
             pod.podName == owner.podName;
    });
    if (!listed) gone.push_back(owner.key());
  }
  for (const auto& key : gone) {
    spdlog::warn("interface {} of container {} is gone and was never detached", key.second,
                 key.first);
    detach(key);
  }
}

void Attachments::retryFailed() {
  bool well = false;
  for (const auto& [id, device] : table_.all())
    if (device.offer && !device.record && device.offer->device.backend == Backend::kernel)
      well = backings_.kernel.retry(id, *device.offer) || well;
  if (well) onHealth_();
}

void Attachments::shutdown() {
  table_.shutdown();
}

void Attachments::step(std::string_view name) {
  if (options_.onStep) options_.onStep(name);
}

}  // namespace vdpa
