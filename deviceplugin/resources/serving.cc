// See the header.
#include "deviceplugin/resources/serving.h"

#include <fmt/format.h>

namespace vdpa {
namespace {

// The network functions that a kernel driver turns into vDPA devices, first match first. Sources:
// the drivers' PCI ID tables under drivers/vdpa in Linux 6.12; vp-vdpa takes any modern virtio
// function it is told to.
struct KernelDriver {
  const char* driver;
  const char* vendor;
  const char* device;           // "": any
  const char* subsystemVendor;  // "": any
};
constexpr KernelDriver kKernelDrivers[] = {
    {"ifcvf", "1af4", "1041", "8086"},  {"ifcvf", "1af4", "1041", "1ed8"},
    {"vp-vdpa", "1af4", "1041", ""},    {"eni-vdpa", "1af4", "1000", "1af4"},
    {"mlx5_core", "15b3", "", ""},      {"snet-vdpa-driver", "d063", "1000", ""},
    {"pds_core", "1dd8", "100b", ""},   {"octep_vdpa", "177d", "b900", ""},
    {"octep_vdpa", "177d", "b903", ""}, {"octep_vdpa", "177d", "ba00", ""},
    {"octep_vdpa", "177d", "ba03", ""}, {"octep_vdpa", "177d", "bd00", ""},
    {"octep_vdpa", "177d", "bd03", ""},
};

// DPDK 22.11's vDPA drivers and the kernel driver each needs below it.
struct DpdkDriver {
  const char* driver;
  const char* kernelDriver;
  const char* vendor;
  const char* device;
  const char* subsystemVendor;
};
constexpr DpdkDriver kDpdkDrivers[] = {
    {"ifc", "vfio-pci", "1af4", "1041", "8086"}, {"ifc", "vfio-pci", "1af4", "1000", "8086"},
    {"mlx5", "mlx5_core", "15b3", "101b", ""},   {"mlx5", "mlx5_core", "15b3", "101c", ""},
    {"mlx5", "mlx5_core", "15b3", "101d", ""},   {"mlx5", "mlx5_core", "15b3", "101e", ""},
    {"mlx5", "mlx5_core", "15b3", "101f", ""},   {"mlx5", "mlx5_core", "15b3", "1021", ""},
    {"mlx5", "mlx5_core", "15b3", "a2d6", ""},   {"mlx5", "mlx5_core", "15b3", "a2dc", ""},
    {"sfc", "vfio-pci", "10ee", "1100", ""},
};

template <typename Driver>
bool fits(const Driver& driver, const PciFunction& function) {
  return function.vendor == driver.vendor &&
         (*driver.device == '\0' || function.device == driver.device) &&
         (*driver.subsystemVendor == '\0' || function.subsystemVendor == driver.subsystemVendor);
}

const DpdkDriver* dpdkDriverOf(const Candidate& candidate) {
  if (!candidate.function) return nullptr;
  for (const auto& driver : kDpdkDrivers)
    if (fits(driver, *candidate.function)) return &driver;
  return nullptr;
}

std::string orNone(const std::string& text) {
  return text.empty() ? "none" : text;
}

Device deviceOf(const ResourceConfig& resource, const Candidate& candidate, Backend backend) {
  Device device;
  device.id = candidate.id;
  device.backend = backend;
  device.attach = resource.attach;
  device.numaNode = candidate.numaNode;
  device.queuePairs = candidate.queuePairs();
  if (const auto* function = candidate.function) {
    device.pciAddress = function->address;
    device.pf = function->pf.empty() ? function->address : function->pf;
  } else if (candidate.slice) {
    device.pf = candidate.slice->pciAddress;
  }
  return device;
}

Serving asVdpaDevice(const ResourceConfig& resource, const Candidate& candidate) {
  const VdpaDevice& vdpa = *candidate.vdpa;
  Device device = deviceOf(resource, candidate, Backend::kernel);
  device.vdpa = vdpa.name;
  device.managementDevice = vdpa.managementDevice;
  device.characterDevice = vdpa.characterDevice;
  // One that we made stays ours to undo.
  const bool ours = resource.provision && candidate.management &&
                    vdpa.name == provisionedName(candidate.management->name);
  device.provision = ours;
  if (ours) device.pciDriver = candidate.function ? vdpaDriverOf(candidate) : "";
  const std::string needed = resource.attach == Attach::virtioVdpa ? "virtio_vdpa" : "vhost_vdpa";
  if (vdpa.busDriver != needed) {
    if (ours) {  // it is being bound
      device.unhealthy =
          fmt::format("its vDPA device {} is not bound to {} yet", vdpa.name, needed);
      return {device, "vDPA device " + vdpa.name};
    }
    return {std::nullopt,
            fmt::format("its vDPA device {} is bound to {}, needs {}; try `modprobe {}`, then "
                        "`echo {} > /sys/bus/vdpa/drivers/{}/bind`",
                        vdpa.name, orNone(vdpa.busDriver), needed,
                        needed == "vhost_vdpa" ? "vhost-vdpa" : "virtio-vdpa", vdpa.name, needed)};
  }
  if (needed == "vhost_vdpa" && vdpa.characterDevice.empty())
    device.unhealthy = fmt::format("its vDPA device {} has no character device yet", vdpa.name);
  return {device, fmt::format("vDPA device {} under {}", vdpa.name, vdpa.busDriver)};
}

Serving asKernelDevice(const ResourceConfig& resource, const Candidate& candidate) {
  if (candidate.vdpa) return asVdpaDevice(resource, candidate);
  const std::string driver = vdpaDriverOf(candidate);
  const bool bound = candidate.management != nullptr;
  if (driver.empty() && !bound)
    return {std::nullopt, fmt::format("{}:{} has no kernel vDPA driver", candidate.function->vendor,
                                      candidate.function->device)};
  if (resource.provision && (bound || !driver.empty())) {
    Device device = deviceOf(resource, candidate, Backend::kernel);
    device.managementDevice =
        bound ? candidate.management->name : "pci/" + candidate.function->address;
    device.vdpa = provisionedName(device.managementDevice);
    device.provision = true;
    if (candidate.function) device.pciDriver = driver;
    device.unhealthy = fmt::format("its vDPA device {} is being made", device.vdpa);
    return {device, fmt::format("vDPA device {}, to be made", device.vdpa)};
  }
  if (bound)
    return {std::nullopt, fmt::format("{} has no vDPA device; `vdpa dev add name NAME mgmtdev {}` "
                                      "or `provision: vdpa` would make one",
                                      candidate.management->name, candidate.management->name)};
  if (candidate.function->driver == driver)
    return {std::nullopt,
            fmt::format("its driver {} offers no vDPA device; is the driver's vDPA part loaded?",
                        driver)};
  return {std::nullopt, fmt::format("driver is {}, needs {}; `provision: vdpa` would bind it",
                                    orNone(candidate.function->driver), driver)};
}

Serving asDpdkDevice(const ResourceConfig& resource, const Candidate& candidate) {
  const DpdkDriver* driver = dpdkDriverOf(candidate);
  if (!driver) {
    const std::string what = candidate.function
                                 ? candidate.function->vendor + ":" + candidate.function->device
                                 : candidate.id;
    return {std::nullopt, what + " has no DPDK vDPA driver"};
  }
  if (candidate.function->driver != driver->kernelDriver)
    return {std::nullopt,
            fmt::format("driver is {}, needs {} for DPDK's {}", orNone(candidate.function->driver),
                        driver->kernelDriver, driver->driver)};
  Device device = deviceOf(resource, candidate, Backend::dpdk);
  device.dpdkDriver = driver->driver;
  device.queuePairs = 0;
  return {device, fmt::format("DPDK driver {} over {}", driver->driver, driver->kernelDriver)};
}

}  // namespace

std::string vdpaDriverOf(const Candidate& candidate) {
  if (!candidate.function) return "";
  for (const auto& driver : kKernelDrivers)
    if (fits(driver, *candidate.function)) return driver.driver;
  return "";
}

Serving serve(const ResourceConfig& resource, const Candidate& candidate) {
  if (resource.backend == BackendChoice::kernel) return asKernelDevice(resource, candidate);
  if (resource.backend == BackendChoice::dpdk) return asDpdkDevice(resource, candidate);
  Serving kernel = asKernelDevice(resource, candidate);
  const bool elsewhere = kernel.device && kernel.device->provision && !candidate.vdpa &&
                         candidate.function &&
                         candidate.function->driver != vdpaDriverOf(candidate);
  if ((kernel.device && !elsewhere) || resource.attach != Attach::vhostUser) return kernel;
  // What is bound for DPDK already, it gets: provisioning takes nothing from such a driver. Else
  // what the kernel lacks is the better advice.
  Serving dpdk = asDpdkDevice(resource, candidate);
  if (dpdk.device) return dpdk;
  if (const DpdkDriver* driver = dpdkDriverOf(candidate); driver && !kernel.device)
    kernel.why += fmt::format(" (or {} for DPDK's {})", driver->kernelDriver, driver->driver);
  return kernel;
}

}  // namespace vdpa
