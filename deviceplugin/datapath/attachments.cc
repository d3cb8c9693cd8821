// See the header.
#include "deviceplugin/datapath/attachments.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "common/log.h"
#include "deviceplugin/datapath/device_directory.h"
#include "deviceplugin/datapath/device_files.h"
#include "deviceplugin/datapath/owner_check.h"
#include "deviceplugin/datapath/refused_error.h"
#include "deviceplugin/datapath/rollback.h"
#include "deviceplugin/datapath/software_port.h"

namespace vdpa {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether an owner has gone.
constexpr auto kLook = 250ms;

}  // namespace

Attachments::Attachments(Options options, std::function<void()> onHealth)
    : options_(std::move(options)),
      records_(options_.paths.owners()),
      switches_(options_.programs, options_.paths, std::move(onHealth)) {
  recover();
}

Attachments::~Attachments() = default;

void Attachments::setDevices(const std::vector<Resource>& resources) {
  checkDeviceSet(resources);
  std::lock_guard setting(settingDevices_);
  std::map<std::string, DeviceTable::Offer> offers;
  for (const auto& resource : resources)
    for (const auto& id : resource.devices)
      offers[id] = {resource.name, resource.socket, resource.software};
  for (const auto& [id, offer] : offers) DeviceDirectory(options_.paths, id).ensure();
  switches_.offer(resources);
  for (const auto& id : table_.setOffers(offers)) DeviceDirectory(options_.paths, id).remove();
  removeDirectoriesExcept(options_.paths,
                          [this](const std::string& id) { return table_.find(id).has_value(); });
  spdlog::info("{} devices of {} resources", offers.size(), resources.size());
}

Attachments::Live Attachments::attach(const AttachRequest& request,
                                      const std::function<bool()>& cancelled) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  checkOwner(owner);
  const auto deadline = Clock::now() + options_.patience;
  DeviceTable::Reservation reservation(table_, owner, id);
  const auto offer = table_.waitOffer(id, deadline, owner.key());
  softwarePort(id, request.settings, offer.software.mtu);  // refused before anything else is done

  const DeviceTable::Lease lease = takeDevice(request, deadline);
  const auto vswitch = waitSwitch(offer.resource, id, deadline, owner.key());

  OwnerRecord record;
  record.bootId = options_.bootId;
  record.netns = namespaceAt(owner.netns);
  if (record.netns == NamespaceId{})
    spdlog::warn("{}: cannot see the network namespace {}: its end will not be noticed", id,
                 owner.netns);
  record.socket = offer.socket;
  record.software = vswitch->config();
  record.attachment.deviceId = id;
  record.attachment.resource = offer.resource;
  record.attachment.owner = owner;
  record.attachment.port = softwarePort(id, request.settings, record.software.mtu);
  record.attachment.port.mac = reservation.takeMac(record.attachment.port.mac);
  record.attachment.queuePairs = record.software.queuePairs;
  record.attachment.ips = request.ips;
  record.attachment.created = std::time(nullptr);

  const DeviceDirectory directory(options_.paths, id);
  std::shared_ptr<WorkerHandle> worker;
  Rollback rollback;  // after everything that it uses
  rollback.add([&] { records_.remove(id); });
  records_.write(record, Durability::disk);
  step("recorded");
  rollback.add([&] { directory.renew(); });
  directory.renew();
  step("directory");
  rollback.add([&] { vswitch->removePort(id); });
  const std::string engine = vswitch->addPort(id, record.attachment.port);
  step("port");
  worker = std::make_shared<WorkerHandle>(options_.programs, options_.paths, record, engine);
  rollback.add([&] { worker->stop(); });
  worker->waitReady(Clock::now() + options_.patience);
  step("worker");
  writeDeviceFiles(directory.path(), record.attachment);
  step("files");
  if (cancelled() || table_.calledOff(owner.key()))
    throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
  record.phase = Phase::attached;
  records_.write(record, Durability::memory);
  step("attached");
  table_.setAttachment(lease, record, worker);
  rollback.commit();
  spdlog::info("attached {} to {}", id, describeOwner(owner));
  return {record.attachment, worker->state(), 0};
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
        return std::move(*lease);
      }
      holder = describeOwner(device->record->attachment.owner);
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

std::shared_ptr<SwitchHandle> Attachments::waitSwitch(const std::string& resource,
                                                      const std::string& deviceId,
                                                      Clock::time_point deadline,
                                                      const AttachmentKey& key) {
  for (;;) {
    const auto vswitch = switches_.find(resource);
    if (vswitch && vswitch->waitUp(std::min(deadline, Clock::now() + kLook))) return vswitch;
    if (Clock::now() >= deadline || table_.calledOff(key))
      throw RefusedError(Refusal::aborted,
                         fmt::format("cannot attach {} yet: {}", deviceId,
                                     vswitch ? vswitch->status().reason
                                             : "the switch of " + resource + " is not there"));
  }
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
  if (const auto vswitch = switches_.find(record.attachment.resource)) vswitch->removePort(id);
  step("port removed");
  DeviceDirectory(options_.paths, id).renew();
  step("directory emptied");
  records_.remove(id);
  step("record removed");
  if (table_.clearAttachment(lease)) DeviceDirectory(options_.paths, id).remove();
  device.reset();
  switches_.collect();
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

void Attachments::shutdown() {
  table_.shutdown();
}

void Attachments::step(std::string_view name) {
  if (options_.onStep) options_.onStep(name);
}

}  // namespace vdpa
