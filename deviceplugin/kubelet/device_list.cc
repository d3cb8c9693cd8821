// See the header.
#include "deviceplugin/kubelet/device_list.h"

#include <algorithm>

namespace vdpa {

DeviceList::DeviceList(const std::vector<Device>& devices) {
  setDevices(devices);
}

void DeviceList::setDevices(const std::vector<Device>& devices) {
  std::lock_guard lock(mutex_);
  std::map<std::string, Health> health;
  order_.clear();
  for (const auto& device : devices) {
    order_.push_back(device.id);
    const auto known = health_.find(device.id);
    health.emplace(device.id, known == health_.end() ? Health() : known->second);
  }
  health_ = std::move(health);
  publish();
}

void DeviceList::setHealth(const std::map<std::string, Health>& changes) {
  std::lock_guard lock(mutex_);
  bool changed = false;
  for (const auto& [id, health] : changes) {
    const auto known = health_.find(id);
    if (known == health_.end() || known->second == health) continue;
    changed = changed || known->second.healthy != health.healthy;
    known->second = health;
  }
  if (changed) publish();
}

void DeviceList::setAllHealth(const Health& health) {
  std::lock_guard lock(mutex_);
  bool changed = false;
  for (auto& [id, known] : health_) {
    changed = changed || known.healthy != health.healthy;
    known = health;
  }
  if (changed) publish();
}

void DeviceList::resend() {
  std::lock_guard lock(mutex_);
  publish();
}

DeviceList::Health DeviceList::healthOf(const std::string& id) const {
  std::lock_guard lock(mutex_);
  return health_.at(id);
}

size_t DeviceList::healthyCount() const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(health_.begin(), health_.end(),
                                           [](const auto& entry) { return entry.second.healthy; }));
}

size_t DeviceList::size() const {
  std::lock_guard lock(mutex_);
  return health_.size();
}

std::pair<DeviceList::Message, uint64_t> DeviceList::current() const {
  std::lock_guard lock(mutex_);
  return {message_, version_};
}

void DeviceList::subscribe(const void* key, Listener listener) {
  std::lock_guard lock(mutex_);
  listeners_[key] = std::move(listener);
}

void DeviceList::unsubscribe(const void* key) {
  std::lock_guard lock(mutex_);
  listeners_.erase(key);
}

void DeviceList::publish() {
  auto message = std::make_shared<v1beta1::ListAndWatchResponse>();
  for (const auto& id : order_) {
    auto* device = message->add_devices();
    device->set_id(id);
    device->set_health(health_.at(id).healthy ? "Healthy" : "Unhealthy");
  }
  message_ = std::move(message);
  ++version_;
  for (const auto& [key, listener] : listeners_) listener(message_, version_);
}

}  // namespace vdpa
