#include "deviceplugin/resources/backend_fit.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "common/backend.h"
#include "common/vdpa_attributes.h"
#include "common/vdpa_drivers.h"
#include "common/virtio_features.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/candidate.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {
namespace {

constexpr const char* kVirtioVendor = "1af4";  // every vendor's virtio functions have it

template <typename Ids>
bool fits(const Ids& ids, const Candidate& candidate) {
  const PciFunction* function = candidate.function;
  return function && std::any_of(ids.begin(), ids.end(), [&](const PciId& id) {
           return id.fits(function->vendor, function->device, function->subsystemVendor,
                          function->subsystemDevice);
         });
}

const KernelVdpaDriver* driverByIds(const Candidate& candidate) {
  for (const auto& driver : kernelVdpaDrivers())
    if (fits(driver.functions, candidate)) return &driver;
  return nullptr;
}

// The bound driver if a device or a management device exists, else the driver that supports the
// function. nullptr: none does.
const KernelVdpaDriver* driverOf(const Candidate& candidate) {
  const std::string management = candidate.vdpa         ? candidate.vdpa->managementDevice
                                 : candidate.management ? candidate.management->name
                                                        : "";
  if (!candidate.vdpa && !candidate.management) return driverByIds(candidate);
  std::string name = candidate.function ? candidate.function->driver
                                        : management.substr(management.rfind('/') + 1);
  if (management.starts_with("auxiliary/")) name = name.substr(0, name.find('.'));
  const auto* driver = findKernelVdpaDriver(name);
  return driver ? driver : &unknownVdpaDriver();
}

const DpdkVdpaDriver* dpdkDriverOf(const Candidate& candidate) {
  for (const auto& driver : dpdkVdpaDrivers())
    if (fits(driver.functions, candidate) || fits(driver.pfs, candidate)) return &driver;
  return nullptr;
}

// Why no kernel driver makes a vDPA device of a function.
std::string whyNoDriver(const PciFunction& function) {
  const std::string ids = function.vendor + ":" + function.device;
  if (function.vendor != kVirtioVendor)
    for (const auto& driver : kernelVdpaDrivers())
      for (const auto& id : driver.functions)
        if (function.vendor == id.vendor)
          return fmt::format(
              "{} is not a function that {} supports ({}), and has no kernel vDPA driver", ids,
              driver.module, driver.hardware);
  return ids + " has no kernel vDPA driver";
}

// The attributes of `vdpa dev add` for this resource; `problem`: an attribute that the driver
// doesn't support.
VdpaAttributes attributesFor(const VdpaConfig& config, const KernelVdpaDriver& driver,
                             std::string& problem) {
  const auto refuse = [&](bool asked, bool can, const char* key) {
    if (asked && !can && problem.empty())
      problem = fmt::format("vdpa.{} is not supported: `vdpa dev add` of its driver {} takes {}",
                            key, driver.name, addAttributes(driver));
  };
  refuse(config.queuePairs != 0, driver.queuePairs, "queuePairs");
  refuse(config.mtu != 0, driver.mtu, "mtu");
  refuse(config.features != 0, driver.features, "features");
  VdpaAttributes attributes;
  // Don't ask a driver for all if that is its default.
  if (driver.queuePairs && (config.pairs() != 0 || driver.askForAll))
    attributes.queuePairs = config.pairs();
  if (config.features != 0 || (driver.askForAll && driver.features))
    attributes.features = config.features != 0 ? config.features | driver.mandatory : 0;
  attributes.mtu = config.mtu;
  return attributes;
}

std::string orNone(const std::string& text) {
  return text.empty() ? "none" : text;
}

Device deviceOf(const ResourceConfig& resource, const Candidate& candidate, BackendKind backend) {
  Device device;
  device.id = candidate.id;
  device.backend = backend;
  device.attach = resource.attach;
  device.numaNode = candidate.numaNode;
  device.queuePairs = candidate.queuePairs();
  device.pfName = candidate.pfName;
  if (const auto* function = candidate.function) {
    device.pciAddress = function->address;
    device.pf = function->pf.empty() ? function->address : function->pf;
  } else if (candidate.slice) {
    device.pf = candidate.slice->pciAddress;
  }
  return device;
}

VdpaRules rulesOf(const KernelVdpaDriver& driver) {
  return {driver.name, driver.mac, driver.mtu, driver.macLater};
}

std::string madeWith(const Device& device) {
  return fmt::format(
      "made with {}{}", describe(device.attributes),
      device.rules.macWhenMade
          ? fmt::format("; remade for a MAC{}", device.rules.mtuWhenMade ? " or an MTU" : "")
          : "");
}

// The differences between a device, as the kernel reports it, and its attributes; empty: none. A
// missing feature MAC is no difference: the function has no MAC.
std::string differences(const VdpaAttributes& wanted, const VdpaDevice& vdpa,
                        const ManagementDevice& management) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  unsigned pairs = wanted.queuePairs.value_or(vdpa.queuePairs);
  if (pairs == 0) pairs = std::max(1u, management.maxVirtqueues / 2);
  if (pairs != vdpa.queuePairs)
    add(fmt::format("{} queue pair{}", vdpa.queuePairs, vdpa.queuePairs == 1 ? "" : "s"));
  if (wanted.mtu != 0 && vdpa.mtu != 0 && wanted.mtu != vdpa.mtu)
    add(fmt::format("mtu {}", vdpa.mtu));
  uint64_t features = wanted.features.value_or(vdpa.features);
  if (features == 0) features = management.features;
  features &= ~kFeatureMac;
  if (pairs == 1) features &= ~kFeatureMultiqueue;
  if (const uint64_t missing = features & ~vdpa.features; vdpa.features != 0 && missing != 0)
    add("no " + featureNames(missing));
  return text;
}

// The attributes of a device that has the name that provisioning gives.
std::string asMade(const Device& device, const Candidate& candidate) {
  const std::string other = differences(device.attributes, *candidate.vdpa, *candidate.management);
  if (other.empty()) return madeWith(device);
  return fmt::format(
      "to be made with {}, but it has {}: either for a pod's network, or because an older kernel, "
      "an older vdpa-datapath or another program made it; to remake it, run `vdpa dev del {}` "
      "while no pod has it",
      describe(device.attributes), other, device.vdpa);
}

// Sets how its vDPA device is made. Returns the request of the resource that is impossible; empty:
// none.
std::string provision(const ResourceConfig& resource, const Candidate& candidate,
                      const KernelVdpaDriver& driver, Device& device) {
  std::string problem;
  device.provision = true;
  device.attributes = attributesFor(resource.vdpa, driver, problem);
  if (!problem.empty()) return problem;
  if (!candidate.vdpa && resource.vdpa.pairs() != 0) device.queuePairs = resource.vdpa.pairs();
  if (const auto* management = candidate.management)
    problem = unsupported(device.attributes,
                          {management->name, management->maxVirtqueues, management->features});
  // Keep a driver that was bound instead of the usual one.
  if (candidate.function && (!candidate.management || candidate.function->driver == driver.name))
    device.pciDriver = vdpaDriverOf(candidate);
  return problem;
}

BackendFit asVdpaDevice(const ResourceConfig& resource, const Candidate& candidate,
                        const KernelVdpaDriver& driver) {
  const VdpaDevice& vdpa = *candidate.vdpa;
  Device device = deviceOf(resource, candidate, BackendKind::kernel);
  device.vdpa = vdpa.name;
  device.managementDevice = vdpa.managementDevice;
  device.characterDevice = vdpa.characterDevice;
  // A device that we made stays ours to undo.
  const bool ours = resource.provision && candidate.hasProvisionedDevice();
  device.provision = ours;
  device.rules = rulesOf(driver);
  std::string made;
  if (ours) {
    if (const auto problem = provision(resource, candidate, driver, device); !problem.empty())
      return {std::nullopt, problem};
    made = asMade(device, candidate);
  } else if (resource.provision) {
    made = fmt::format(
        "made by another program, with that program's attributes: to remake it, run "
        "`vdpa dev del {}` while no pod has it",
        vdpa.name);
  }
  const std::string needed = resource.attach == Attach::virtioVdpa ? "virtio_vdpa" : "vhost_vdpa";
  if (vdpa.busDriver != needed) {
    if (ours) {  // it is being bound
      device.unhealthy =
          fmt::format("its vDPA device {} is not bound to {} yet", vdpa.name, needed);
      return {device, fmt::format("vDPA device {}, {}", vdpa.name, made)};
    }
    return {std::nullopt,
            fmt::format("its vDPA device {} is bound to {}, needs {}; try `modprobe {}`, then "
                        "`echo {} > /sys/bus/vdpa/drivers/{}/bind`",
                        vdpa.name, orNone(vdpa.busDriver), needed,
                        needed == "vhost_vdpa" ? "vhost-vdpa" : "virtio-vdpa", vdpa.name, needed)};
  }
  if (needed == "vhost_vdpa" && vdpa.characterDevice.empty())
    device.unhealthy = fmt::format("its vDPA device {} has no character device yet", vdpa.name);
  return {device, fmt::format("vDPA device {} under {}{}{}", vdpa.name, vdpa.busDriver,
                              made.empty() ? "" : ", ", made)};
}

BackendFit asKernelDevice(const ResourceConfig& resource, const Candidate& candidate) {
  const KernelVdpaDriver* driver = driverOf(candidate);
  if (!driver) return {std::nullopt, whyNoDriver(*candidate.function)};
  if (resource.attach == Attach::vhostUser && *driver->notOverSocket != '\0')
    return {std::nullopt, driver->notOverSocket};
  if (candidate.vdpa) return asVdpaDevice(resource, candidate, *driver);
  const bool bound = candidate.management != nullptr;
  if (resource.provision) {
    if (*driver->notProvisioned != '\0') return {std::nullopt, driver->notProvisioned};
    Device device = deviceOf(resource, candidate, BackendKind::kernel);
    device.rules = rulesOf(*driver);
    if (const auto problem = provision(resource, candidate, *driver, device); !problem.empty())
      return {std::nullopt, problem};
    device.managementDevice =
        bound ? candidate.management->name : "pci/" + candidate.function->address;
    device.vdpa = provisionedName(device.managementDevice);
    device.unhealthy = fmt::format("its vDPA device {} is being made", device.vdpa);
    return {device, fmt::format("vDPA device {}, to be {}", device.vdpa, madeWith(device))};
  }
  if (bound)
    return {std::nullopt, fmt::format("{} has no vDPA device; `vdpa dev add name NAME mgmtdev {}` "
                                      "or `provision: vdpa` would make one",
                                      candidate.management->name, candidate.management->name)};
  if (candidate.function->driver == driver->name)
    return {
        std::nullopt,
        fmt::format("its driver {} offers no vDPA device; is the driver's vDPA part ({}) loaded?",
                    driver->name, driver->module)};
  return {
      std::nullopt,
      fmt::format("driver is {}, needs {}; {}", orNone(candidate.function->driver), driver->name,
                  *driver->notProvisioned != '\0' ? driver->notProvisioned
                                                  : "`provision: vdpa` would bind it")};
}

BackendFit asDpdkDevice(const ResourceConfig& resource, const Candidate& candidate) {
  const DpdkVdpaDriver* driver = dpdkDriverOf(candidate);
  if (!driver) {
    const std::string what = candidate.function
                                 ? candidate.function->vendor + ":" + candidate.function->device
                                 : candidate.id;
    return {std::nullopt, what + " has no DPDK vDPA driver"};
  }
  if (resource.backend != BackendChoice::dpdk && fits(driver->pfs, candidate))
    return {std::nullopt,
            fmt::format("is a PF, which only `backend: dpdk` gives to DPDK's {}", driver->name)};
  if (candidate.function->driver != driver->kernelDriver)
    return {std::nullopt,
            fmt::format("driver is {}, needs {} for DPDK's {}", orNone(candidate.function->driver),
                        driver->kernelDriver, driver->name)};
  Device device = deviceOf(resource, candidate, BackendKind::dpdk);
  device.dpdkDriver = driver->name;
  device.queuePairs = 0;
  const std::string devargs = defaultDevargs(*driver, resource.devargs);
  return {device, fmt::format("DPDK driver {} over {}{}", driver->name, driver->kernelDriver,
                              devargs.empty() ? "" : ", with " + devargs)};
}

}  // namespace

std::string vdpaDriverOf(const Candidate& candidate) {
  const auto* driver = driverByIds(candidate);
  return driver && *driver->notProvisioned == '\0' ? driver->name : "";
}

BackendFit fitBackend(const ResourceConfig& resource, const Candidate& candidate) {
  if (resource.backend == BackendChoice::kernel) return asKernelDevice(resource, candidate);
  if (resource.backend == BackendChoice::dpdk) return asDpdkDevice(resource, candidate);
  BackendFit kernel = asKernelDevice(resource, candidate);
  const bool elsewhere = kernel.device && kernel.device->provision && !candidate.vdpa &&
                         candidate.function &&
                         candidate.function->driver != vdpaDriverOf(candidate);
  if ((kernel.device && !elsewhere) || resource.attach != Attach::vhostUser) return kernel;
  // DPDK's drivers don't have these attributes.
  if (!kernel.device && resource.vdpa != VdpaConfig()) return kernel;
  // A function that is already bound for DPDK stays there: provisioning takes nothing from such a
  // driver. Otherwise the kernel's reason is the better advice.
  BackendFit dpdk = asDpdkDevice(resource, candidate);
  if (dpdk.device) return dpdk;
  if (const auto* driver = dpdkDriverOf(candidate);
      driver && !kernel.device && !fits(driver->pfs, candidate))
    kernel.why += fmt::format(" (or {} for DPDK's {})", driver->kernelDriver, driver->name);
  return kernel;
}

}  // namespace vdpa::plugin
