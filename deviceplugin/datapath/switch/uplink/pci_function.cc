#include "deviceplugin/datapath/switch/uplink/pci_function.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/errors.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/dpdk/start_eal.h"
#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kTaggedHeader = 18, kSecondTag = 4;  // bytes
constexpr unsigned kRoomUnit = 1024;                    // of buffers, as hardware counts them
constexpr unsigned kLeastRoom = 2048;
constexpr unsigned kMegabytes = 32, kMegabytesPerQueue = 2;  // for descriptors and drivers

// Those of NICs that work behind vfio-pci, in DPDK 22.11. Each knows its own by their IDs.
constexpr const char* kDrivers[] = {"bnxt", "e1000", "ena",   "i40e",   "iavf",
                                    "ice",  "igc",   "ixgbe", "virtio", "vmxnet3"};

std::string idOf(const fs::path& file) {
  std::string text;
  std::ifstream(file) >> text;
  return text.starts_with("0x") ? text.substr(2) : text;
}

}  // namespace

void checkUplinkFunction(const std::string& sysfs, const std::string& dev,
                         const std::string& address) {
  const fs::path function = fs::path(sysfs) / "bus/pci/devices" / address;
  std::error_code error;
  if (!fs::exists(function, error))
    throw std::runtime_error(fmt::format(
        "uplink PCI function {} is not on this node; check 'uplink' in the configuration",
        address));
  const std::string bound = fs::read_symlink(function / "driver", error).filename();
  const std::string title = fmt::format("uplink PCI function {} ({}:{})", address,
                                        idOf(function / "vendor"), idOf(function / "device"));
  if (bound == "mlx5_core")
    throw std::runtime_error(fmt::format(
        "{} is bound to mlx5_core, which it needs: give its netdev as the uplink instead", title));
  if (bound != "vfio-pci")
    throw std::runtime_error(fmt::format(
        "{} is bound to {}, but must be bound to vfio-pci: write vfio-pci to {}, unbind the "
        "function, and write its address to {}/bus/pci/drivers_probe",
        title, bound.empty() ? "no kernel driver" : bound, (function / "driver_override").string(),
        sysfs));
  if (!fs::exists(function / "iommu_group", error))
    throw std::runtime_error(fmt::format(
        "{} has no IOMMU group, without which it can't be given the switch's memory: enable the "
        "IOMMU in the firmware and the kernel (intel_iommu=on)",
        title));
  const auto group =
      fs::path(dev) / "vfio" / fs::read_symlink(function / "iommu_group", error).filename();
  const UniqueFd opened(::open(group.c_str(), O_RDWR | O_CLOEXEC));
  if (opened.get() < 0)
    throw systemError(errno, "cannot open {}, by which {} is driven (a container needs {}/vfio)",
                      group.string(), title, dev);
}

UplinkDevice pciDevice(const UplinkOptions& options) {
  checkUplinkFunction("/sys", "/dev", options.pci);
  UplinkDevice device;
  device.title = options.pci;
  // DPDK's memory, all of which is pinned.
  const unsigned megabytes = kMegabytes + kMegabytesPerQueue * options.queues;
  device.eal = {"-a", options.pci, "-m", std::to_string(megabytes)};
  // Each registers itself, for EAL to choose. Not all are installed everywhere.
  for (const char* driver : kDrivers) {
    const auto library = dpdk::versionedLibrary(fmt::format("librte_net_{}.so", driver));
    ::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
  device.name = options.pci;
  device.room = std::max(kLeastRoom, (options.mtu + kTaggedHeader + kSecondTag + kRoomUnit - 1) /
                                         kRoomUnit * kRoomUnit);
  device.dma = true;
  device.port.queues = options.queues;
  device.port.mtu = options.mtu;
  device.port.interrupts = true;
  device.port.promiscuous = true;
  return device;
}

}  // namespace vdpa::vswitch
