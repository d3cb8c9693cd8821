#include "deviceplugin/datapath/pmd/driver.h"

#include <fmt/core.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/vdpa_drivers.h"

namespace vdpa::pmd {
namespace {

namespace fs = std::filesystem;

std::string readId(const fs::path& file) {
  std::string text;
  std::ifstream(file) >> text;
  return text.starts_with("0x") ? text.substr(2) : text;
}

}  // namespace

const DpdkVdpaDriver& findDriver(const std::string& name) {
  std::string names;
  for (const auto& driver : dpdkVdpaDrivers()) {
    if (driver.name == name) return driver;
    names += std::string(names.empty() ? "" : ", ") + driver.name;
  }
  throw std::runtime_error(fmt::format("driver '{}': expected one of {}", name, names));
}

std::string functionsOf(const DpdkVdpaDriver& driver) {
  std::string text;
  for (const auto& ids : {driver.functions, driver.pfs})
    for (const auto& id : ids) text += (text.empty() ? "" : ", ") + describe(id);
  return text;
}

std::string devargsOf(const DpdkVdpaDriver& driver, const std::string& operators) {
  std::string devargs = driver.selector;
  if (const auto more = defaultDevargs(driver, operators); !more.empty()) devargs += "," + more;
  return operators.empty() ? devargs : devargs + "," + operators;
}

void checkFunction(const std::string& sysfs, const std::string& address,
                   const DpdkVdpaDriver& driver) {
  const fs::path function = fs::path(sysfs) / "bus/pci/devices" / address;
  std::error_code error;
  if (!fs::exists(function, error))
    throw std::runtime_error(
        fmt::format("no PCI function {} on this node; is the address right, and does its PF still "
                    "have this VF (sriov_numvfs)?",
                    address));
  const std::string bound = fs::read_symlink(function / "driver", error).filename();
  if (bound != driver.kernelDriver)
    throw std::runtime_error(fmt::format(
        "PCI function {} ({}:{}) is bound to {}, but DPDK's {} driver needs {}: write {} to {}, "
        "unbind the function, and write its address to {}/bus/pci/drivers_probe",
        address, readId(function / "vendor"), readId(function / "device"),
        bound.empty() ? "no kernel driver" : bound, driver.name, driver.kernelDriver,
        driver.kernelDriver, (function / "driver_override").string(), sysfs));
  if (driver.kernelDriver == std::string("vfio-pci") &&
      !fs::exists(function / "iommu_group", error))
    throw std::runtime_error(
        fmt::format("PCI function {} has no IOMMU group, without which it can't be given a pod's "
                    "memory: enable the IOMMU in the firmware and the kernel (intel_iommu=on)",
                    address));
}

}  // namespace vdpa::pmd
