// From attached to free: by the owner's Detach, by an operator, or as an orphan. Every step can be
// repeated; if one fails, the device stays with its owner and the detach is retried.
#include <fmt/core.h>

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "common/log.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/orphans.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;

// How long an Attach may take to end once called off: a process it started may use its whole
// timeout.
constexpr auto kEndOfAttach = 25s;

// Wakes the provisioner for a released device. Declared before the lease, so that the lease has
// ended by then: the provisioner leaves a leased device alone.
class WakeAtEnd {
 public:
  explicit WakeAtEnd(Provisioner& provisioner) : provisioner_(provisioner) {}
  ~WakeAtEnd() { provisioner_.wake(); }
  WakeAtEnd(const WakeAtEnd&) = delete;
  WakeAtEnd& operator=(const WakeAtEnd&) = delete;

 private:
  Provisioner& provisioner_;
};

}  // namespace

bool Attachments::detach(const AttachmentKey& key) {
  const WakeAtEnd wake(node_.provisioner);
  const auto lease = node_.table.leaseAttached(key, Clock::now() + kEndOfAttach);
  if (!lease) return false;
  endAttachment(*lease);
  // The pod no longer uses the device: a record that can't be removed doesn't delay its deletion.
  try {
    forget(*lease);
  } catch (const std::exception& error) {
    log::error("{} stays unusable until its record can be removed: {}", lease->id(), error.what());
  }
  return true;
}

bool Attachments::release(const std::string& id, const AttachmentKey& expected, bool force) {
  if (!node_.table.find(id))
    throw RefusedError(Refusal::notFound,
                       fmt::format("this node has no device {}; see vdpactl devices", id));
  const WakeAtEnd wake(node_.provisioner);
  const auto lease = node_.table.lease(id, Clock::now() + node_.options.timeout);
  const auto device = node_.table.find(id);
  if (!lease || !device)
    throw RefusedError(Refusal::aborted,
                       fmt::format("device {} is being attached or detached by another call", id));
  if (!device->owned()) return false;
  const Owner owner = device->record ? device->record->attachment.owner : Owner();
  if (expected != AttachmentKey() && expected != owner.key())
    throw RefusedError(Refusal::aborted,
                       fmt::format("{} has a different owner now: {}", id,
                                   device->record ? describeOwner(owner) : device->error));
  if (device->withheld()) {
    if (!force) throw RefusedError(Refusal::aborted, fmt::format("{}: {}", id, device->error));
    endWithheld(*lease);
    return true;
  }
  if (!force && device->record->phase != Phase::detaching &&
      !namespaceGone(owner.netns, device->record->netns))
    throw RefusedError(Refusal::aborted,
                       fmt::format("{} is attached to {}, whose network namespace still exists: "
                                   "delete that pod, or take the device from it with --force",
                                   id, describeOwner(owner)));
  undo(*lease);
  return true;
}

void Attachments::undo(const DeviceTable::Lease& lease) {
  endAttachment(lease);
  forget(lease);
}

// Keeps a failure as the device's error.
void Attachments::keepingError(const DeviceTable::Lease& lease,
                               const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    node_.table.setError(lease, error.what());
    node_.onHealth();
    throw;
  }
}

// Undoes everything that the owner could notice.
void Attachments::endAttachment(const DeviceTable::Lease& lease) {
  const std::string& id = lease.id();
  const auto device = node_.table.find(id);
  OwnerRecord record = *device->record;
  record.phase = Phase::detaching;
  keepingError(lease, [&] {
    try {
      node_.records.write(record, Durability::memory);
    } catch (const std::exception& error) {
      // On a full disk it can still be removed. A crash before that leaves the device attached.
      log::warn("{}; detaching {} all the same", error.what(), id);
    }
    node_.step("detaching");
    if (device->worker)
      device->worker->stop();
    else  // an earlier vdpa-datapath may have left one that it could not end
      stopStray(node_.options.paths.workerControl(id));
    node_.step("worker stopped");
    // A reboot has already done this, and what the record names may belong to another owner since.
    if (record.bootId == node_.options.bootId) {
      node_.backends.of(record.device).stop(record);
      node_.step("engine stopped");
      node_.changes.restore(record);
      node_.step("settings put back");
    }
    DeviceDirectory(node_.options.paths, id).renew();
    node_.step("directory emptied");
  });
}

void Attachments::forget(const DeviceTable::Lease& lease) {
  const std::string& id = lease.id();
  keepingError(lease, [&] { node_.records.remove(id); });
  node_.step("record removed");
  const auto device = node_.table.find(id);
  clear(lease);
  node_.switches.collect(device->record->attachment.resource);
  log::info("detached {} from {}", id, describeOwner(device->record->attachment.owner));
}

void Attachments::clear(const DeviceTable::Lease& lease) {
  if (node_.table.clearAttachment(lease)) {
    // If the device has just come back, its directory is already made.
    Lock directories(node_.deviceDirectories);
    if (!node_.table.find(lease.id())) DeviceDirectory(node_.options.paths, lease.id()).remove();
  }
  node_.onHealth();
}

// Ends everything that may serve the device: its owner is unknown.
void Attachments::endWithheld(const DeviceTable::Lease& lease) {
  const std::string& id = lease.id();
  stopStray(node_.options.paths.workerControl(id));
  for (const auto& [resource, vswitch] : node_.switches.all())
    if (vswitch->waitUp(Clock::now() + node_.options.timeout) && vswitch->hasPort(id))
      vswitch->removePort(id);
  node_.backends.dpdk.stopOthers([&](const std::string& other) { return other != id; });
  if (const auto device = node_.table.find(id); device->offer) {
    OwnerRecord record;
    record.attachment.deviceId = id;
    record.attachment.resource = device->offer->resource;
    record.device = device->offer->device;
    node_.backends.of(record.device).stop(record);
  }
  DeviceDirectory(node_.options.paths, id).renew();
  node_.records.removeUnreadable(id);
  clear(lease);
  for (const auto& [resource, vswitch] : node_.switches.all()) node_.switches.collect(resource);
  log::warn(
      "{} was withheld and is free again; the settings that its owner made are unknown and "
      "stay as they are",
      id);
}

void Attachments::detachOrphans() {
  const auto devices = node_.table.all();
  std::vector<ObservedAttachment> attachments;
  for (const auto& [id, device] : devices) {
    if (!device.record) continue;
    const Attachment& attachment = device.record->attachment;
    attachments.push_back({id, attachment.resource, attachment.owner,
                           namespaceGone(attachment.owner.netns, device.record->netns),
                           device.record->phase == Phase::detaching});
  }
  for (const auto& due :
       node_.orphans.look(attachments, node_.options.listPodDevices, Clock::now())) {
    const WakeAtEnd wake(node_.provisioner);
    // A device that another call works on is checked again the next time.
    const auto lease = node_.table.lease(due.deviceId, Clock::now());
    const auto device = node_.table.find(due.deviceId);
    if (!lease || !device || !device->record) continue;
    const OwnerRecord& record = *device->record;
    const Owner& owner = record.attachment.owner;
    if (owner.key() != due.owner.key()) continue;
    if (record.phase != Phase::detaching && !namespaceGone(owner.netns, record.netns)) continue;
    try {
      undo(*lease);
      node_.orphans.countDetached();
    } catch (const std::exception& error) {
      log::error("cannot detach {} from {} (retrying): {}", due.deviceId, describeOwner(owner),
                 error.what());
    }
  }
}

}  // namespace vdpa::datapath
