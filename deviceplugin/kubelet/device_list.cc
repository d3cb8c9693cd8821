#include "deviceplugin/kubelet/device_list.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin.pb.h"
#include "deviceplugin/resources/device.h"
#include "deviceplugin/resources/preferred_allocation.h"

namespace vdpa::plugin {

DeviceList::DeviceList(const std::vector<Device>& devices, bool topology) : topology_(topology) {
  setDevices(devices);
}

DeviceList::Health DeviceList::Entry::health() const {
  return device.unhealthy.empty() ? datapath : Health{false, device.unhealthy};
}

bool DeviceList::setDevices(const std::vector<Device>& devices,
                            const std::map<std::string, Health>& health) {
  Lock lock(mutex_);
  std::map<std::string, Entry> entries;
  order_.clear();
  for (const auto& device : devices) {
    order_.push_back(device.id);
    Health now;
    if (const auto known = entries_.find(device.id); known != entries_.end())
      now = known->second.datapath;
    else if (const auto said = health.find(device.id); said != health.end())
      now = said->second;
    entries.emplace(device.id, Entry{device, std::move(now)});
  }
  entries_ = std::move(entries);
  const Message before = message_;
  publish();
  return !before || before->SerializeAsString() != message_->SerializeAsString();
}

void DeviceList::setHealth(const std::map<std::string, Health>& changes) {
  Lock lock(mutex_);
  bool changed = false;
  for (const auto& [id, health] : changes) {
    const auto known = entries_.find(id);
    if (known == entries_.end()) continue;
    const bool before = known->second.health().healthy;
    known->second.datapath = health;
    changed = changed || known->second.health().healthy != before;
  }
  if (changed) publish();
}

void DeviceList::setAllHealth(const Health& health) {
  Lock lock(mutex_);
  bool changed = false;
  for (auto& [id, entry] : entries_) {
    const bool before = entry.health().healthy;
    entry.datapath = health;
    changed = changed || entry.health().healthy != before;
  }
  if (changed) publish();
}

void DeviceList::resend() {
  Lock lock(mutex_);
  publish();
}

DeviceList::Health DeviceList::healthOf(const std::string& id) const {
  Lock lock(mutex_);
  return entries_.at(id).health();
}

std::optional<std::pair<Device, DeviceList::Health>> DeviceList::find(const std::string& id) const {
  Lock lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return std::nullopt;
  return std::pair(entry->second.device, entry->second.health());
}

std::vector<Choice> DeviceList::choices(const std::vector<std::string>& ids) const {
  Lock lock(mutex_);
  std::vector<Choice> choices;
  for (const auto& id : ids)
    if (const auto entry = entries_.find(id); entry != entries_.end())
      choices.push_back({id, entry->second.device.numaNode, entry->second.device.pf});
  return choices;
}

size_t DeviceList::healthyCount() const {
  Lock lock(mutex_);
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) {
    return entry.second.health().healthy;
  }));
}

size_t DeviceList::size() const {
  Lock lock(mutex_);
  return entries_.size();
}

std::pair<DeviceList::Message, uint64_t> DeviceList::current() const {
  Lock lock(mutex_);
  return {message_, version_};
}

void DeviceList::subscribe(const void* key, Listener listener) {
  Lock lock(mutex_);
  listeners_[key] = std::move(listener);
}

void DeviceList::unsubscribe(const void* key) {
  Lock lock(mutex_);
  listeners_.erase(key);
}

void DeviceList::publish() {
  auto message = std::make_shared<v1beta1::ListAndWatchResponse>();
  for (const auto& id : order_) {
    const Entry& entry = entries_.at(id);
    auto* device = message->add_devices();
    device->set_id(id);
    device->set_health(entry.health().healthy ? "Healthy" : "Unhealthy");
    if (topology_ && entry.device.numaNode >= 0)
      device->mutable_topology()->add_nodes()->set_id(entry.device.numaNode);
  }
  message_ = std::move(message);
  ++version_;
  for (const auto& [key, listener] : listeners_) listener(message_, version_);
}

}  // namespace vdpa::plugin
