#include "deviceplugin/datapath/hardware/provisioner.h"

#include <fmt/core.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "common/rollback.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

constexpr auto kRetry = std::chrono::seconds(5);

}  // namespace

Provisioner::Provisioner(Options options, const VdpaBus& bus)
    : options_(std::move(options)), bus_(bus) {
  makeDirectory(options_.records, 0700);
  records_ = readRecords();
  thread_ = std::thread([this] { run(); });
}

Provisioner::~Provisioner() {
  {
    Lock lock(mutex_);
    stop_ = true;
  }
  changed_.notifyAll();
  thread_.join();
}

void Provisioner::want(Devices devices) {
  {
    Lock lock(mutex_);
    for (const auto& [id, device] : devices)
      if (!wanted_.contains(id))
        problems_[id] = fmt::format("vDPA device {} is being made", device.vdpa);
    wanted_ = std::move(devices);
    settled_ = false;
    haveDevices_ = work_ = true;
  }
  changed_.notifyAll();
}

void Provisioner::wake() {
  {
    Lock lock(mutex_);
    work_ = true;
  }
  changed_.notifyAll();
}

std::vector<std::string> Provisioner::waitUndone(std::chrono::steady_clock::time_point deadline) {
  Lock lock(mutex_);
  while (!settled_ || !left_.empty())
    if (!changed_.waitUntil(mutex_, deadline)) break;
  return left_;
}

std::string Provisioner::problem(const std::string& id) const {
  Lock lock(mutex_);
  const auto found = problems_.find(id);
  return found == problems_.end() ? "" : found->second;
}

void Provisioner::run() {
  bool done = true;
  for (;;) {
    {
      Lock lock(mutex_);
      const auto retry = Condition::Clock::now() + kRetry;
      while (!stop_ && !(work_ && haveDevices_)) {
        if (done)
          changed_.wait(mutex_);
        else if (!changed_.waitUntil(mutex_, retry))
          break;
      }
      if (stop_) return;
      work_ = settled_ = false;
    }
    done = step();
    {
      Lock lock(mutex_);
      left_.clear();
      for (const auto& [id, record] : records_)
        if (!wanted_.contains(id)) left_.push_back(id);
      settled_ = !work_;
    }
    changed_.notifyAll();
    options_.changed();
  }
}

bool Provisioner::step() {
  Devices wanted;
  {
    Lock lock(mutex_);
    wanted = wanted_;
  }
  bool done = undoUnwanted(wanted);
  std::map<std::string, std::string> problems;
  for (const auto& [id, device] : wanted) {
    try {
      const Turn turn(*this, id);
      make(id, device);
    } catch (const std::exception& error) {
      problems[id] = fmt::format("cannot make vDPA device {}: {}", device.vdpa, error.what());
      if (problem(id) != problems[id]) log::error("{}: {}", id, problems[id]);
      done = false;
    }
    Lock lock(mutex_);
    if (stop_) return true;
  }
  Lock lock(mutex_);
  problems_ = std::move(problems);
  return done;
}

bool Provisioner::undoUnwanted(const Devices& wanted) {
  std::vector<std::string> unwanted;
  {
    Lock lock(mutex_);
    for (const auto& [id, record] : records_)
      if (!wanted.contains(id)) unwanted.push_back(id);
  }
  bool done = true;
  for (const auto& id : unwanted) {
    const Turn turn(*this, id);
    if (options_.owned(id)) {  // checked again: a pod may release it at any moment
      done = false;
      continue;
    }
    try {
      undo(id);
    } catch (const std::exception& error) {
      log::error("cannot undo the provisioning of {}: {}", id, error.what());
      done = false;
    }
  }
  return done;
}

std::optional<Provisioner::Record> Provisioner::ours(const std::string& id) const {
  Lock lock(mutex_);
  const auto record = records_.find(id);
  if (record == records_.end() || record->second.bootId != options_.bootId) return std::nullopt;
  return record->second;
}

Provisioner::Turn::Turn(Provisioner& provisioner, const std::string& id,
                        std::optional<std::chrono::steady_clock::time_point> deadline)
    : provisioner_(provisioner), id_(id) {
  Lock lock(provisioner_.mutex_);
  while (provisioner_.making_.contains(id_)) {
    if (!deadline)
      provisioner_.changed_.wait(provisioner_.mutex_);
    else if (!provisioner_.changed_.waitUntil(provisioner_.mutex_, *deadline))
      break;
  }
  has_ = provisioner_.making_.insert(id_).second;
}

Provisioner::Turn::~Turn() {
  if (!has_) return;
  {
    Lock lock(provisioner_.mutex_);
    provisioner_.making_.erase(id_);
  }
  provisioner_.changed_.notifyAll();
}

void Provisioner::keep(const Record& record, Durability durability) {
  write(record, durability);
  Lock lock(mutex_);
  records_[record.device] = record;
}

void Provisioner::make(const std::string& id, const DeviceConfig& device) {
  const bool there = bus_.has(device.vdpa);
  if (there && (options_.owned(id) || !isOurs(id))) return;
  if (!there && options_.owned(id))
    throw std::runtime_error(
        "it disappeared while a pod had it and is remade once that pod is gone");
  makeNow(id, device, device.attributes);
}

bool Provisioner::remake(const std::string& id, const DeviceConfig& device,
                         const VdpaAttributes& attributes,
                         std::chrono::steady_clock::time_point deadline) {
  const Turn turn(*this, id, deadline);
  if (!turn)
    throw RefusedError(
        Refusal::aborted,
        fmt::format("cannot attach {} yet: vDPA device {} is being made", id, device.vdpa));
  const auto record = ours(id);
  if (!record) return false;
  if (bus_.has(device.vdpa) && record->made && record->attributes == attributes) return false;
  Rollback changed;  // whatever the result, the device was away
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
  } catch (const std::exception& error) {  // the thread retries
    log::error("cannot remake vDPA device {} of {}: {}", device.vdpa, id, error.what());
  }
}

void Provisioner::makeNow(const std::string& id, const DeviceConfig& device,
                          const VdpaAttributes& attributes) {
  const std::string driver = device.attach == Attach::virtioVdpa ? "virtio_vdpa" : "vhost_vdpa";
  const bool there = bus_.has(device.vdpa);
  if (const auto before = ours(id);
      there && before && before->made && before->attributes == attributes)
    return bus_.bind(device.vdpa, driver);
  if (there) bus_.requireClosed(device.vdpa);
  Record record = recordFor(id, device);
  record.attributes = attributes;
  if (attributes.mtu != 0 && !record.foundMtu && options_.mtu) learnMtu(device, record);
  clearWay(device, record);
  VdpaAttributes passed = attributes;
  const bool putBack = attributes.mtu == 0 && record.foundMtu.value_or(0) != 0;
  if (putBack && mayHaveMtu(attributes))
    passed.mtu = *record.foundMtu;
  else if (putBack)
    restoreMtu(record);
  record.taken = options_.add(device.vdpa, device.managementDevice, passed);
  record.made = true;
  if (putBack) record.foundMtu.reset();
  keep(record, Durability::memory);  // if this write is lost, the device is only remade once more
  log::info("{}: made vDPA device {} of {} with {}; passed: {}", id, device.vdpa,
            device.managementDevice, describe(attributes), describe(record.taken));
  bus_.bind(device.vdpa, driver);
}

// The record of a device that is about to be made.
Provisioner::Record Provisioner::recordFor(const std::string& id,
                                           const DeviceConfig& device) const {
  Record record;
  record.device = id;
  record.vdpa = device.vdpa;
  record.managementDevice = device.managementDevice;
  record.pciAddress = device.pciAddress;
  record.pciDriver = device.pciDriver;
  record.bootId = options_.bootId;
  record.made = false;
  if (!device.pciAddress.empty()) {
    record.foundDriver = linkName(function(device.pciAddress) + "/driver");
    record.foundOverride = driverOverride(function(device.pciAddress));
  }
  if (!record.foundDriver.empty() && !device.pciDriver.empty() &&
      record.foundDriver != device.pciDriver)
    checkUnused(function(device.pciAddress), record.foundDriver);
  // A later change keeps what the first one found: that is what is restored.
  if (const auto before = ours(id)) {
    record.foundDriver = before->foundDriver;
    record.foundOverride = before->foundOverride;
    if (record.pciDriver.empty()) record.pciDriver = before->pciDriver;
    record.foundMtu = before->foundMtu;
  }
  return record;
}

// Records `record`, removes the old device and binds the driver, before the new device is made.
void Provisioner::clearWay(const DeviceConfig& device, const Record& record) {
  keep(record, Durability::disk);
  if (bus_.has(device.vdpa)) options_.remove(device.vdpa);
  bindDriver(device);
}

void Provisioner::undo(const std::string& id) {
  Record record;
  {
    Lock lock(mutex_);
    record = records_.at(id);
  }
  // After a restart of the node nothing of it is left.
  if (record.bootId == options_.bootId) {
    if (bus_.has(record.vdpa)) bus_.requireClosed(record.vdpa);
    const bool putBack = record.foundMtu.value_or(0) != 0 && hasParent(record);
    if (putBack && std::exchange(record.made, false)) keep(record, Durability::disk);
    if (bus_.has(record.vdpa)) options_.remove(record.vdpa);
    if (putBack) restoreMtu(record);
    const bool back = !record.pciAddress.empty() && !record.pciDriver.empty() &&
                      record.pciDriver != record.foundDriver && restoreDriver(record);
    log::info("{}: removed vDPA device {}{}", id, record.vdpa,
              back ? ", driver back to " + orNone(record.foundDriver) : "");
  }
  std::filesystem::remove(recordPath(id));
  Lock lock(mutex_);
  records_.erase(id);
}

}  // namespace vdpa::datapath
