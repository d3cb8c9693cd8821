// The kernel, its modules, the IOMMU and huge pages.
#include <fmt/format.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/vdpa_drivers.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

constexpr const char* kPciDevices = "/sys/bus/pci/devices";
constexpr const char* kVdpaDevices = "/sys/bus/vdpa/devices";

using Release = std::pair<int, int>;
constexpr Release kLeast{5, 3};           // pidfd_open(2), by which processes are watched
constexpr Release kLeastHardware{5, 18};  // VHOST_VDPA_GET_VQS_COUNT
constexpr Release kMacLater{6, 12};       // `vdpa dev set mac`

struct Hardware {
  bool devices = false;            // on the vdpa bus
  std::set<std::string> modules;   // of functions whose driver only makes vDPA devices
  std::set<std::string> possible;  // of functions whose driver makes them beside netdevs
  bool passedThrough = false;      // functions bound to vfio-pci: uplinks, and DPDK's devices

  bool inUse() const { return devices || !modules.empty(); }
};

// Four hex digits, without the "0x" of sysfs.
std::string pciId(const Node& node, const std::string& function, const char* file) {
  const std::string text =
      node.read(fmt::format("{}/{}/{}", kPciDevices, function, file)).value_or("");
  return text.starts_with("0x") ? text.substr(2) : text;
}

Hardware find(const Node& node) {
  Hardware hardware;
  hardware.devices = !node.list(kVdpaDevices).empty();
  for (const auto& function : node.list(kPciDevices)) {
    const std::string driver = node.linkName(fmt::format("{}/{}/driver", kPciDevices, function));
    if (driver == "vfio-pci") hardware.passedThrough = true;
    const std::string vendor = pciId(node, function, "vendor"),
                      device = pciId(node, function, "device"),
                      subVendor = pciId(node, function, "subsystem_vendor"),
                      subDevice = pciId(node, function, "subsystem_device");
    for (const auto& known : kernelVdpaDrivers())
      for (const auto& id : known.functions)
        // Only those with the driver: a virtual machine's ordinary NIC could have it too.
        if (driver == known.name && id.fits(vendor, device, subVendor, subDevice))
          (driver.ends_with("_core") ? hardware.possible : hardware.modules).insert(known.module);
  }
  return hardware;
}

Finding kernel(const Node& node, const Hardware& hardware) {
  const std::string text = node.read("/proc/sys/kernel/osrelease").value_or("");
  Release release{0, 0};
  if (std::sscanf(text.c_str(), "%4d.%4d", &release.first, &release.second) != 2)
    return {"kernel", Verdict::unseen, "its release cannot be read"};
  const std::string version = "Linux " + text;
  if (release < kLeast)
    return {"kernel", Verdict::fail, version + " is too old: 5.3 is the first with pidfd_open()",
            "install a newer kernel; 6.12 is tested"};
  if (hardware.inUse() && release < kLeastHardware)
    return {"kernel", Verdict::fail,
            version + " is too old for vDPA devices: 5.18 is the first that reports their queues",
            "install a newer kernel; 6.12 is tested"};
  if (hardware.devices && release < kMacLater)
    return {"kernel", Verdict::pass,
            version + "; changing a vDPA device's MAC without remaking it needs 6.12"};
  return {"kernel", Verdict::pass, version};
}

Finding modules(const Node& node, const Hardware& hardware) {
  std::vector<std::string> missing;
  // A driver that is built in has no entry in /proc/modules.
  const bool vhost = node.exists("/sys/bus/vdpa/drivers/vhost_vdpa");
  const auto need = [&](const std::set<std::string>& modules) {
    if (!vhost) missing.push_back("vhost_vdpa");
    for (const auto& module : modules)
      if (!node.exists("/sys/module/" + module)) missing.push_back(module);
  };
  const auto remedy = [&](const char* condition) {
    return fmt::format(
        "{}`modprobe -a {}` on the node, and the names in a file of "
        "/etc/modules-load.d for its next boot",
        condition, fmt::join(missing, " "));
  };
  if (hardware.inUse()) {
    need(hardware.modules);
    if (missing.empty())
      return {"modules", Verdict::pass, "vhost_vdpa and the drivers of this node's functions"};
    return {"modules", Verdict::fail, fmt::format("not loaded: {}", fmt::join(missing, " ")),
            remedy("")};
  }
  if (hardware.possible.empty())
    return {"modules", Verdict::pass, "no vDPA hardware; software ports need no module"};
  need(hardware.possible);
  if (missing.empty())
    return {"modules", Verdict::pass, "vhost_vdpa and the drivers of this node's functions"};
  return {"modules", Verdict::warn,
          fmt::format("functions of this node could become vDPA devices, but not loaded are: {}",
                      fmt::join(missing, " ")),
          remedy("if a resource selects them: ")};
}

Finding iommu(const Node& node, const Hardware& hardware) {
  const size_t groups = node.list("/sys/kernel/iommu_groups").size();
  const char* remedy =
      "enable it in the firmware (VT-d, AMD-Vi) and, with an Intel CPU, boot with intel_iommu=on; "
      "a "
      "virtual machine needs a virtual IOMMU";
  if (groups > 0) return {"iommu", Verdict::pass, fmt::format("{} groups", groups)};
  if (hardware.passedThrough)
    return {"iommu", Verdict::fail, "there is no IOMMU, but functions are bound to vfio-pci",
            remedy};
  if (!hardware.modules.empty())
    return {"iommu", Verdict::warn,
            "there is no IOMMU: vhost-vdpa refuses devices whose driver does not map memory itself",
            remedy};
  return {"iommu", Verdict::pass, "there is none, and no function needs one"};
}

Finding hugePages(const Node& node) {
  constexpr const char* kSizes = "/sys/kernel/mm/hugepages";
  std::vector<std::string> parts;
  bool used = false;
  for (const auto& size : node.list(kSizes)) {  // "hugepages-2048kB"
    const auto number = [&](const char* file) {
      const std::string text = node.read(fmt::format("{}/{}/{}", kSizes, size, file)).value_or("");
      uint64_t value = 0;
      std::from_chars(text.data(), text.data() + text.size(), value);
      return value;
    };
    const uint64_t all = number("nr_hugepages"), free = number("free_hugepages");
    if (all == 0) continue;
    used = used || free == 0;
    parts.push_back(
        fmt::format("{} of {} pages of {} are free", free, all, size.substr(size.find('-') + 1)));
  }
  if (parts.empty()) return {"hugepages", Verdict::pass, "none; pods can do without (--no-huge)"};
  const std::string text = fmt::format("{}", fmt::join(parts, ", "));
  if (!used) return {"hugepages", Verdict::pass, text};
  return {"hugepages", Verdict::warn, text + ": another pod that wants some will not start",
          "reserve more (vm.nr_hugepages) and restart the kubelet, which counts them at its start"};
}

}  // namespace

bool hasVdpaHardware(const Node& node) {
  return find(node).inUse();
}

std::vector<Finding> examineKernel(const Node& node) {
  const Hardware hardware = find(node);
  return {kernel(node, hardware), modules(node, hardware), iommu(node, hardware), hugePages(node)};
}

}  // namespace vdpa::ctl
