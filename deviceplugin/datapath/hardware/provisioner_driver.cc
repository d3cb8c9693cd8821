// The PCI driver of a function that gets a vDPA device: binding ours and restoring the previous
// one.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {
namespace {

// The folder stays, empty, when its netdev is moved to another network namespace.
bool holdsNetdev(const std::filesystem::path& device) {
  return std::filesystem::exists(device / "net") && !std::filesystem::is_empty(device / "net");
}

// virtio-pci has no netdev itself: the driver of its virtio device has.
bool hasNetdev(const std::string& function) {
  if (holdsNetdev(function)) return true;
  const std::filesystem::directory_iterator entries(function);
  return std::any_of(begin(entries), end(entries), [](const auto& entry) {
    return entry.path().filename().string().starts_with("virtio") &&
           (holdsNetdev(entry.path()) || !std::filesystem::exists(entry.path() / "driver"));
  });
}

}  // namespace

std::string Provisioner::orNone(const std::string& driver) {
  return driver.empty() ? "no driver" : driver;
}

// The kernel shows "(null)" for none.
std::string Provisioner::driverOverride(const std::string& function) {
  std::string text = readFile(function + "/driver_override");
  while (text.ends_with('\n')) text.pop_back();
  return text == "(null)" ? "" : text;
}

// Refuses a function that may be in use where this program can't see it: by a virtual machine or a
// DPDK program, or as a netdev that another plugin has moved into a pod.
void Provisioner::checkUnused(const std::string& function, const std::string& driver) {
  if (driver == "vfio-pci" || driver == "uio_pci_generic" || driver == "igb_uio")
    throw std::runtime_error(
        fmt::format("it has driver {}, so a program may be using it: unbind it first", driver));
  if (!hasNetdev(function))
    throw std::runtime_error(
        fmt::format("its driver {} has no netdev in the host's network namespace, so a pod may be "
                    "using it: unbind it first",
                    driver));
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

// Handles every state that an interrupted bindDriver leaves; false: nothing of ours is there.
bool Provisioner::restoreDriver(const Record& record) const {
  const std::string path = function(record.pciAddress);
  if (!std::filesystem::exists(path)) return false;
  const std::string bound = linkName(path + "/driver"), wanted = driverOverride(path);
  if (wanted != record.pciDriver && wanted != record.foundDriver) return false;
  if (!bound.empty() && bound != record.pciDriver && bound != record.foundDriver) return false;
  if (bound == record.pciDriver) writeAttribute(path + "/driver/unbind", record.pciAddress);
  // A PF may be set to leave its VFs alone (sriov_drivers_autoprobe): then a driver has to be bound
  // by name.
  if (bound != record.foundDriver && !record.foundDriver.empty()) {
    writeAttribute(path + "/driver_override", record.foundDriver);
    writeAttribute(options_.sysfs + "/bus/pci/drivers/" + record.foundDriver + "/bind",
                   record.pciAddress);
  }
  writeAttribute(path + "/driver_override",
                 record.foundOverride.empty() ? "\n" : record.foundOverride);
  return true;
}

}  // namespace vdpa::datapath
