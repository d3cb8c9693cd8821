// See the header.
#include "deviceplugin/datapath/provisioner.h"

#include <fmt/format.h>

#include <filesystem>
#include <stdexcept>

#include "common/log.h"
#include "deviceplugin/datapath/paths.h"
#include "deviceplugin/datapath/refused_error.h"
#include "deviceplugin/datapath/rollback.h"
#include "deviceplugin/datapath/sysfs_file.h"

namespace vdpa {
namespace {

constexpr auto kRetry = std::chrono::seconds(5);

std::string orNone(const std::string& text) {
  return text.empty() ? "no driver" : text;
}

}  // namespace

Provisioner::Provisioner(Options options, const VdpaBus& bus)
    : options_(std::move(options)), bus_(bus) {
  makeDirectory(options_.records, 0700);
  loadRecords();
  thread_ = std::thread([this] { run(); });
}

Provisioner::~Provisioner() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Provisioner::want(Devices devices) {
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, device] : devices)
      if (!wanted_.contains(id))
        problems_[id] = fmt::format("vDPA device {} is being made", device.vdpa);
    wanted_ = std::move(devices);
    settled_ = false;
    told_ = work_ = true;
  }
  changed_.notify_all();
}

void Provisioner::wake() {
  {
    std::lock_guard lock(mutex_);
    work_ = true;
  }
  changed_.notify_all();
}

std::vector<std::string> Provisioner::waitUndone(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return settled_ && left_.empty(); });
  return left_;
}

std::string Provisioner::problem(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto found = problems_.find(id);
  return found == problems_.end() ? "" : found->second;
}

void Provisioner::run() {
  bool done = true;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      const auto ready = [this] { return stop_ || (work_ && told_); };
      if (done)
        changed_.wait(lock, ready);
      else
        changed_.wait_for(lock, kRetry, ready);
      if (stop_) return;
      work_ = settled_ = false;
    }
    done = step();
    {
      const std::scoped_lock lock(making_, mutex_);
      left_.clear();
      for (const auto& [id, record] : records_)
        if (!wanted_.contains(id)) left_.push_back(id);
      settled_ = !work_;
    }
    changed_.notify_all();
    options_.changed();
  }
}

bool Provisioner::step() {
  Devices wanted;
  {
    std::lock_guard lock(mutex_);
    wanted = wanted_;
  }
  bool done = undoUnwanted(wanted);
  std::map<std::string, std::string> problems;
  for (const auto& [id, device] : wanted) {
    try {
      const std::lock_guard making(making_);
      make(id, device);
    } catch (const std::exception& error) {
      problems[id] = fmt::format("cannot make vDPA device {}: {}", device.vdpa, error.what());
      if (problem(id) != problems[id]) spdlog::error("{}: {}", id, problems[id]);
      done = false;
    }
    std::lock_guard lock(mutex_);
    if (stop_) return true;
  }
  std::lock_guard lock(mutex_);
  problems_ = std::move(problems);
  return done;
}

bool Provisioner::undoUnwanted(const Devices& wanted) {
  const std::lock_guard making(making_);
  bool done = true;
  std::vector<std::string> gone;
  for (const auto& [id, record] : records_) {
    if (wanted.contains(id)) continue;
    if (options_.owned(id)) {  // looked at again: it is let go at any moment
      done = false;
      continue;
    }
    try {
      undo(record);
      std::filesystem::remove(recordPath(id));
      gone.push_back(id);
    } catch (const std::exception& error) {
      spdlog::error("cannot undo the provisioning of {}: {}", id, error.what());
      done = false;
    }
  }
  for (const auto& id : gone) records_.erase(id);
  return done;
}

// One of this name that has no record of this boot isn't ours to change.
bool Provisioner::isOurs(const std::string& id) const {
  const auto record = records_.find(id);
  return record != records_.end() && record->second.bootId == options_.bootId;
}

void Provisioner::make(const std::string& id, const DeviceConfig& device) {
  const bool there = bus_.has(device.vdpa);
  if (there && (options_.owned(id) || !isOurs(id))) return;
  if (!there && options_.owned(id))
    throw std::runtime_error("it went away under its pod, whose end has to come first");
  makeNow(id, device, device.attributes);
}

bool Provisioner::remake(const std::string& id, const DeviceConfig& device,
                         const VdpaAttributes& attributes,
                         std::chrono::steady_clock::time_point deadline) {
  const std::unique_lock making(making_, deadline);
  if (!making)
    throw RefusedError(Refusal::aborted,
                       fmt::format("cannot attach {} yet: vDPA devices are being made", id));
  if (!isOurs(id)) return false;
  const Record& record = records_.at(id);
  if (bus_.has(device.vdpa) && record.made && record.attributes == attributes) return false;
  Rollback changed;  // however it ends, the device was away
  changed.add(options_.changed);
  try {
    makeNow(id, device, attributes);
  } catch (const std::exception&) {
    if (attributes != device.attributes) makeOwn(id, device);
    throw;
  }
  return true;
}

void Provisioner::makeOwn(const std::string& id, const DeviceConfig& device) {
  try {
    makeNow(id, device, device.attributes);
  } catch (const std::exception& error) {  // the thread tries it again
    spdlog::error("cannot make vDPA device {} of {} again: {}", device.vdpa, id, error.what());
  }
}

void Provisioner::makeNow(const std::string& id, const DeviceConfig& device,
                          const VdpaAttributes& attributes) {
  const std::string driver = device.attach == Attach::virtioVdpa ? "virtio_vdpa" : "vhost_vdpa";
  const bool there = bus_.has(device.vdpa);
  const auto before = records_.find(id);
  const bool known = isOurs(id);
  if (there && before->second.made && before->second.attributes == attributes)
    return bus_.bind(device.vdpa, driver);
  if (there) bus_.requireClosed(device.vdpa);
  Record record;
  record.device = id;
  record.vdpa = device.vdpa;
  record.managementDevice = device.managementDevice;
  record.pciAddress = device.pciAddress;
  record.pciDriver = device.pciDriver;
  record.bootId = options_.bootId;
  record.attributes = attributes;
  record.made = false;
  if (!device.pciAddress.empty()) {
    record.foundDriver = linkName(function(device.pciAddress) + "/driver");
    record.foundOverride = driverOverride(function(device.pciAddress));
  }
  if (!record.foundDriver.empty() && !device.pciDriver.empty() &&
      record.foundDriver != device.pciDriver)
    checkUnused(function(device.pciAddress), record.foundDriver);
  // What was found before we came stays what is put back.
  if (known) {
    record.foundDriver = before->second.foundDriver;
    record.foundOverride = before->second.foundOverride;
    if (record.pciDriver.empty()) record.pciDriver = before->second.pciDriver;
    record.foundMtu = before->second.foundMtu;
  }
  const bool mtuIsOurs = known && before->second.attributes.mtu != 0;
  if (attributes.mtu != 0 && record.foundMtu == 0 && !mtuIsOurs && options_.mtu)
    learnMtu(device, attributes, record);
  write(record, Durability::disk);
  records_[id] = record;
  if (bus_.has(device.vdpa)) options_.remove(device.vdpa);
  bindDriver(device);
  VdpaAttributes passed = attributes;
  if (passed.mtu == 0) passed.mtu = record.foundMtu;
  records_[id].taken = options_.add(device.vdpa, device.managementDevice, passed);
  bus_.bind(device.vdpa, driver);
  records_[id].made = true;
  if (attributes.mtu == 0) records_[id].foundMtu = 0;
  write(records_[id], Durability::memory);  // without it, it is only made once more
  spdlog::info("{}: made vDPA device {} of {} with {}; passed: {}", id, device.vdpa,
               device.managementDevice, describe(attributes), describe(records_[id].taken));
}

// A driver keeps an MTU in its parent, where only a device reports it.
void Provisioner::learnMtu(const DeviceConfig& device, const VdpaAttributes& attributes,
                           Record& record) {
  if (!bus_.has(device.vdpa)) {
    write(record, Durability::disk);
    records_[record.device] = record;
    bindDriver(device);
    VdpaAttributes without = attributes;
    without.mtu = 0;
    options_.add(device.vdpa, device.managementDevice, without);
  }
  record.foundMtu = options_.mtu(device.vdpa);
}

// Of a parent whose device has been removed.
void Provisioner::restoreMtu(const Record& record) const {
  VdpaAttributes attributes;
  attributes.mtu = record.foundMtu;
  try {
    options_.add(record.vdpa, record.managementDevice, attributes);
    options_.remove(record.vdpa);
  } catch (const std::exception& error) {
    spdlog::warn("cannot put back MTU {} of {}: {}", record.foundMtu, record.managementDevice,
                 error.what());
  }
}

void Provisioner::undo(const Record& record) const {
  // After a restart of the node nothing of it is left.
  if (record.bootId != options_.bootId) return;
  if (bus_.has(record.vdpa)) {
    bus_.requireClosed(record.vdpa);
    options_.remove(record.vdpa);
    if (record.foundMtu != 0) restoreMtu(record);
  }
  const bool back = !record.pciAddress.empty() && !record.pciDriver.empty() &&
                    record.pciDriver != record.foundDriver && restoreDriver(record);
  spdlog::info("{}: removed vDPA device {}{}", record.device, record.vdpa,
               back ? ", driver back to " + orNone(record.foundDriver) : "");
}

}  // namespace vdpa
