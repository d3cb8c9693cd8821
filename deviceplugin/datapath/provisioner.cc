// See the header.
#include "deviceplugin/datapath/provisioner.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/atomic_file.h"
#include "common/log.h"
#include "deviceplugin/datapath/paths.h"
#include "deviceplugin/datapath/sysfs_file.h"

namespace vdpa {
namespace {

constexpr auto kRetry = std::chrono::seconds(5);

std::string orNone(const std::string& text) {
  return text.empty() ? "no driver" : text;
}

// "(null)" is how the kernel shows none.
std::string driverOverride(const std::string& function) {
  std::string text = readFile(function + "/driver_override");
  while (text.ends_with('\n')) text.pop_back();
  return text == "(null)" ? "" : text;
}

// The folder stays when its netdev is moved to another network namespace, and is empty then.
bool holdsNetdev(const std::filesystem::path& device) {
  return std::filesystem::exists(device / "net") && !std::filesystem::is_empty(device / "net");
}

// virtio-pci serves nobody by itself: the driver of the virtio device that it makes does.
bool hasNetdev(const std::string& function) {
  if (holdsNetdev(function)) return true;
  const std::filesystem::directory_iterator entries(function);
  return std::any_of(begin(entries), end(entries), [](const auto& entry) {
    return entry.path().filename().string().starts_with("virtio") &&
           (holdsNetdev(entry.path()) || !std::filesystem::exists(entry.path() / "driver"));
  });
}

// A function whose driver serves somebody this program doesn't see is not taken from it: a virtual
// machine's or a DPDK program's, or a netdev that another plugin has moved into a pod.
void checkUnused(const std::string& function, const std::string& driver) {
  if (driver == "vfio-pci" || driver == "uio_pci_generic" || driver == "igb_uio")
    throw std::runtime_error(fmt::format(
        "it has driver {}, so that a program may be using it: unbind it first", driver));
  if (!hasNetdev(function))
    throw std::runtime_error(
        fmt::format("its driver {} shows no netdev on the node, so that a pod may have it: unbind "
                    "it first",
                    driver));
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
      std::lock_guard lock(mutex_);
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

  std::map<std::string, std::string> problems;
  for (const auto& [id, device] : wanted) {
    try {
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

void Provisioner::make(const std::string& id, const DeviceConfig& device) {
  const std::string driver = device.attach == Attach::virtioVdpa ? "virtio_vdpa" : "vhost_vdpa";
  if (bus_.has(device.vdpa)) {
    // One of this name that has no record isn't ours to change.
    if (records_.contains(id) && !options_.owned(id)) bus_.bind(device.vdpa, driver);
    return;
  }
  if (options_.owned(id))
    throw std::runtime_error("it went away under its pod, whose end has to come first");
  Record record{id,
                device.vdpa,
                device.pciAddress,
                device.pciDriver,
                device.pciAddress.empty() ? "" : linkName(function(device.pciAddress) + "/driver"),
                device.pciAddress.empty() ? "" : driverOverride(function(device.pciAddress)),
                options_.bootId};
  if (!record.foundDriver.empty() && !device.pciDriver.empty() &&
      record.foundDriver != device.pciDriver)
    checkUnused(function(device.pciAddress), record.foundDriver);
  // What was found before we came stays what is put back.
  if (const auto before = records_.find(id);
      before != records_.end() && before->second.bootId == options_.bootId) {
    record.foundDriver = before->second.foundDriver;
    record.foundOverride = before->second.foundOverride;
  }
  write(record);
  records_[id] = record;
  bindDriver(device);
  options_.add(device.vdpa, device.managementDevice);
  bus_.bind(device.vdpa, driver);
  spdlog::info("{}: made vDPA device {} of {}", id, device.vdpa, device.managementDevice);
}

void Provisioner::bindDriver(const DeviceConfig& device) const {
  if (device.pciAddress.empty() || device.pciDriver.empty()) return;
  const std::string path = function(device.pciAddress);
  const std::string bound = linkName(path + "/driver");
  if (bound == device.pciDriver) return;
  const std::string driver = options_.sysfs + "/bus/pci/drivers/" + device.pciDriver;
  if (!std::filesystem::exists(driver)) {
    std::string module = device.pciDriver;
    std::replace(module.begin(), module.end(), '-', '_');
    throw std::runtime_error(
        fmt::format("the kernel has no PCI driver {}: `modprobe {}` on the "
                    "node",
                    device.pciDriver, module));
  }
  writeAttribute(path + "/driver_override", device.pciDriver);
  if (!bound.empty()) writeAttribute(path + "/driver/unbind", device.pciAddress);
  writeAttribute(options_.sysfs + "/bus/pci/drivers_probe", device.pciAddress);
  if (const std::string now = linkName(path + "/driver"); now != device.pciDriver)
    throw std::runtime_error(
        fmt::format("driver {} did not take {}, which has {} now; see the kernel's log",
                    device.pciDriver, device.pciAddress, orNone(now)));
}

void Provisioner::undo(const Record& record) const {
  // After a restart of the node nothing of it is left.
  if (record.bootId != options_.bootId) return;
  if (bus_.has(record.vdpa)) {
    bus_.requireClosed(record.vdpa);
    options_.remove(record.vdpa);
  }
  const bool back = !record.pciAddress.empty() && !record.pciDriver.empty() &&
                    record.pciDriver != record.foundDriver && restoreDriver(record);
  spdlog::info("{}: removed vDPA device {}{}", record.device, record.vdpa,
               back ? ", driver back to " + orNone(record.foundDriver) : "");
}

// From every state that bindDriver can be interrupted in; false: there is nothing of ours.
bool Provisioner::restoreDriver(const Record& record) const {
  const std::string path = function(record.pciAddress);
  if (!std::filesystem::exists(path)) return false;
  const std::string bound = linkName(path + "/driver"), wanted = driverOverride(path);
  if (wanted != record.pciDriver && wanted != record.foundDriver) return false;
  if (!bound.empty() && bound != record.pciDriver && bound != record.foundDriver) return false;
  if (bound == record.pciDriver) writeAttribute(path + "/driver/unbind", record.pciAddress);
  // A PF may be set to leave its VFs alone (sriov_drivers_autoprobe): then only the driver that
  // is asked for by name takes one.
  if (bound != record.foundDriver && !record.foundDriver.empty()) {
    writeAttribute(path + "/driver_override", record.foundDriver);
    writeAttribute(options_.sysfs + "/bus/pci/drivers/" + record.foundDriver + "/bind",
                   record.pciAddress);
  }
  writeAttribute(path + "/driver_override",
                 record.foundOverride.empty() ? "\n" : record.foundOverride);
  return true;
}

void Provisioner::loadRecords() {
  for (const auto& entry : std::filesystem::directory_iterator(options_.records)) {
    const std::string id = entry.path().filename();
    if (id.ends_with(".tmp")) continue;  // an unfinished write
    try {
      const auto json = nlohmann::json::parse(readFile(entry.path()));
      records_[id] = {id,
                      json.at("vdpa"),
                      json.at("pciAddress"),
                      json.at("pciDriver"),
                      json.at("foundDriver"),
                      json.at("foundOverride"),
                      json.at("bootId")};
    } catch (const std::exception& error) {
      spdlog::error("{} is unreadable and ignored: {}", entry.path().string(), error.what());
    }
  }
}

void Provisioner::write(const Record& record) const {
  const nlohmann::json json{{"version", 1},
                            {"vdpa", record.vdpa},
                            {"pciAddress", record.pciAddress},
                            {"pciDriver", record.pciDriver},
                            {"foundDriver", record.foundDriver},
                            {"foundOverride", record.foundOverride},
                            {"bootId", record.bootId}};
  writeFileAtomically(recordPath(record.device), json.dump(2) + "\n", Durability::disk);
}

}  // namespace vdpa
