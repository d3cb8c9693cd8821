#include "deviceplugin/datapath/attachments/device_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

namespace {

constexpr const char* kNotTold =
    "vdpa-device-plugin has not reported this node's devices yet; is it running?";

}  // namespace

DeviceTable::Lease::~Lease() {
  if (!table_) return;
  {
    Lock lock(table_->mutex_);
    const auto entry = table_->entries_.find(id_);
    if (entry != table_->entries_.end() && entry->second.lease == number_) entry->second.lease = 0;
  }
  table_->changed_.notifyAll();
}

std::vector<std::string> DeviceTable::setOffers(
    const std::map<std::string, OfferedDevice>& offers) {
  std::vector<std::string> gone;
  {
    Lock lock(mutex_);
    haveDevices_ = true;
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      entry->second.offer.reset();
      const Entry& known = entry->second;
      if (offers.contains(entry->first) || known.owned() || known.lease != 0) {
        ++entry;
      } else {
        gone.push_back(entry->first);
        entry = entries_.erase(entry);
      }
    }
    for (const auto& [id, offer] : offers) entries_[id].offer = offer;
  }
  changed_.notifyAll();
  return gone;
}

std::string DeviceTable::notReady() const {
  Lock lock(mutex_);
  if (closed_) return kDrained;
  return haveDevices_ ? "" : kNotTold;
}

OfferedDevice DeviceTable::waitOffer(const std::string& id, Clock::time_point deadline,
                                     const AttachmentKey& key) {
  Lock lock(mutex_);
  while (!haveDevices_ && !calledOffLocked(key))
    if (!changed_.waitUntil(mutex_, deadline)) break;
  if (!haveDevices_)
    throw RefusedError(Refusal::aborted, fmt::format("cannot attach {}: {}", id, kNotTold));
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || !entry->second.offer)
    throw RefusedError(Refusal::notFound,
                       fmt::format("this node has no device {}; see vdpactl devices", id));
  return *entry->second.offer;
}

void DeviceTable::restore(const OwnerRecord& record, std::shared_ptr<WorkerHandle> worker,
                          std::string error) {
  Lock lock(mutex_);
  Entry& entry = entries_[record.attachment.deviceId];
  entry.record = record;
  entry.worker = std::move(worker);
  entry.error = std::move(error);
}

void DeviceTable::setAttachment(const Lease& lease, const OwnerRecord& record,
                                std::shared_ptr<WorkerHandle> worker) {
  Lock lock(mutex_);
  Entry& entry = entries_[lease.id()];
  entry.record = record;
  entry.worker = std::move(worker);
}

void DeviceTable::setError(const Lease& lease, const std::string& error) {
  Lock lock(mutex_);
  Entry& entry = entries_[lease.id()];
  entry.error = error;
  if (entry.record) entry.record->phase = Phase::detaching;
}

void DeviceTable::withhold(const std::string& id, const std::string& error) {
  Lock lock(mutex_);
  entries_[id].error = error;
}

bool DeviceTable::clearAttachment(const Lease& lease) {
  std::shared_ptr<WorkerHandle> worker;  // ends without the mutex: it waits for the event thread
  Lock lock(mutex_);
  const auto entry = entries_.find(lease.id());
  if (entry == entries_.end()) return true;
  entry->second.record.reset();
  worker.swap(entry->second.worker);
  entry->second.error.clear();
  if (entry->second.offer) return false;
  entries_.erase(entry);
  return true;
}

DeviceTable::Lease DeviceTable::leaseLocked(const std::string& id, Entry& entry) {
  entry.lease = ++leases_;
  return {*this, id, entry.lease};
}

std::optional<DeviceTable::Lease> DeviceTable::lease(const std::string& id,
                                                     Clock::time_point deadline) {
  Lock lock(mutex_);
  while (!ending_ && leased(id))
    if (!changed_.waitUntil(mutex_, deadline)) break;
  const auto entry = entries_.find(id);
  if (ending_ || entry == entries_.end() || leased(id)) return std::nullopt;
  return leaseLocked(id, entry->second);
}

std::optional<DeviceTable::Lease> DeviceTable::leaseAttached(const AttachmentKey& key,
                                                             Clock::time_point deadline) {
  Lock lock(mutex_);
  if (const auto pending = pending_.find(key); pending != pending_.end()) {
    pending->second.calledOff = true;
    changed_.notifyAll();
  }
  while (busy(key))
    if (!changed_.waitUntil(mutex_, deadline)) break;
  if (busy(key))
    throw RefusedError(Refusal::aborted,
                       fmt::format("interface {} of container {} is still being attached or "
                                   "detached by another call",
                                   key.second, key.first));
  const auto entry = findAttached(key);
  if (entry == entries_.end()) return std::nullopt;
  return leaseLocked(entry->first, entry->second);
}

bool DeviceTable::waitFree(const std::string& id, Clock::time_point deadline,
                           const AttachmentKey& key) {
  Lock lock(mutex_);
  while (!calledOffLocked(key) && !free(id))
    if (!changed_.waitUntil(mutex_, deadline)) break;
  return !calledOffLocked(key) && free(id);
}

bool DeviceTable::leased(const std::string& id) const {
  const auto entry = entries_.find(id);
  return entry != entries_.end() && entry->second.lease != 0;
}

bool DeviceTable::free(const std::string& id) const {
  const auto entry = entries_.find(id);
  return entry == entries_.end() || (!entry->second.record && entry->second.lease == 0);
}

std::map<std::string, DeviceTable::Entry>::iterator DeviceTable::findAttached(
    const AttachmentKey& key) {
  return std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return entry.second.record && entry.second.record->attachment.owner.key() == key;
  });
}

bool DeviceTable::busy(const AttachmentKey& key) {
  if (pending_.contains(key)) return true;
  const auto entry = findAttached(key);
  return entry != entries_.end() && entry->second.lease != 0;
}

bool DeviceTable::calledOff(const AttachmentKey& key) const {
  Lock lock(mutex_);
  return calledOffLocked(key);
}

bool DeviceTable::calledOffLocked(const AttachmentKey& key) const {
  const auto pending = pending_.find(key);
  return ending_ || (pending != pending_.end() && pending->second.calledOff);
}

std::optional<DeviceTable::Device> DeviceTable::find(const std::string& id) const {
  Lock lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return std::nullopt;
  return static_cast<const Device&>(entry->second);
}

std::optional<OwnerRecord> DeviceTable::findRecord(
    const std::function<bool(const OwnerRecord&)>& wanted) const {
  Lock lock(mutex_);
  for (const auto& [id, entry] : entries_)
    if (entry.record && wanted(*entry.record)) return entry.record;
  return std::nullopt;
}

bool DeviceTable::inUse(const std::string& id) const {
  Lock lock(mutex_);
  const auto found = entries_.find(id);
  return found != entries_.end() && (found->second.owned() || found->second.lease != 0);
}

std::map<std::string, DeviceTable::Device> DeviceTable::all() const {
  Lock lock(mutex_);
  return {entries_.begin(), entries_.end()};
}

std::vector<std::string> DeviceTable::close() {
  Lock lock(mutex_);
  std::vector<std::string> holders;
  for (const auto& [id, entry] : entries_) {
    if (entry.record)
      holders.push_back(fmt::format("{} by {}", id, describeOwner(entry.record->attachment.owner)));
    else if (entry.withheld())
      holders.push_back(fmt::format("{}, which is withheld: {}", id, entry.error));
  }
  for (const auto& [key, pending] : pending_)
    holders.push_back(
        fmt::format("{} by container {}, which is being attached", pending.deviceId, key.first));
  closed_ = holders.empty();
  return holders;
}

bool DeviceTable::closed() const {
  Lock lock(mutex_);
  return closed_;
}

void DeviceTable::shutdown() {
  {
    Lock lock(mutex_);
    ending_ = true;
  }
  changed_.notifyAll();
}

}  // namespace vdpa::datapath
