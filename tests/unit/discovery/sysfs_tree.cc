#include "tests/unit/discovery/sysfs_tree.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace vdpa {

namespace fs = std::filesystem;

SysfsTree::SysfsTree() {
  std::string pattern = "/tmp/vdpa-sysfs-XXXXXX";
  root_ = ::mkdtemp(pattern.data());
  for (const char* directory :
       {"bus/pci/devices", "bus/pci/drivers", "bus/vdpa/devices", "bus/vdpa/drivers/vhost_vdpa",
        "bus/vdpa/drivers/virtio_vdpa", "bus/auxiliary/devices", "class/net", "dev/char",
        "kernel/iommu_groups"})
    fs::create_directories(root_ + "/" + directory);
}

SysfsTree::~SysfsTree() {
  fs::remove_all(root_);
}

void SysfsTree::write(const std::string& file, const std::string& content) {
  fs::create_directories(fs::path(root_ + "/" + file).parent_path());
  std::ofstream(root_ + "/" + file) << content;
}

void SysfsTree::link(const std::string& target, const std::string& name) {
  fs::create_directories(fs::path(root_ + "/" + name).parent_path());
  fs::create_symlink(root_ + "/" + target, root_ + "/" + name);
}

std::string SysfsTree::pathOf(const std::string& function) const {
  return "devices/pci0000:00/" + function;
}

void SysfsTree::add(const Function& function) {
  const std::string path = pathOf(function.address);
  fs::create_directories(root_ + "/" + path);
  std::string uevent;
  if (!function.driver.empty()) {
    uevent = "DRIVER=" + function.driver + "\n";
    fs::create_directories(root_ + "/bus/pci/drivers/" + function.driver);
    link("bus/pci/drivers/" + function.driver, path + "/driver");
  }
  uevent += "PCI_CLASS=" + function.classCode + "\nPCI_ID=" + function.ids +
            "\nPCI_SUBSYS_ID=" + function.subsystem + "\nPCI_SLOT_NAME=" + function.address + "\n";
  write(path + "/uevent", uevent);
  if (!function.numaNode.empty()) write(path + "/numa_node", function.numaNode + "\n");
  if (function.iommuGroup >= 0) {
    const std::string group = fmt::format("kernel/iommu_groups/{}", function.iommuGroup);
    fs::create_directories(root_ + "/" + group);
    link(group, path + "/iommu_group");
  }
  link(path, "bus/pci/devices/" + function.address);
  for (const auto& netdev : function.netdevs) addNetdev(function.address, netdev);
}

void SysfsTree::remove(const std::string& address) {
  fs::remove(root_ + "/bus/pci/devices/" + address);
  fs::remove_all(root_ + "/" + pathOf(address));
}

void SysfsTree::setVfs(const std::string& pf, const std::vector<std::string>& addresses) {
  for (size_t i = 0; i < addresses.size(); ++i)
    link(pathOf(addresses[i]), fmt::format("{}/virtfn{}", pathOf(pf), i));
}

void SysfsTree::addNetdev(const std::string& function, const std::string& name,
                          const std::string& portName, const std::string& operstate) {
  const std::string path = pathOf(function) + "/net/" + name;
  write(path + "/operstate", operstate + "\n");
  if (!portName.empty()) write(path + "/phys_port_name", portName + "\n");
  link(path, "class/net/" + name);
}

void SysfsTree::addVirtual(const std::string& netdev) {
  write("devices/virtual/net/" + netdev + "/operstate", "up\n");
  link("devices/virtual/net/" + netdev, "class/net/" + netdev);
}

void SysfsTree::addVdpa(const std::string& parent, const std::string& name,
                        const std::string& driver, int number) {
  const bool slice = fs::exists(root_ + "/bus/auxiliary/devices/" + parent);
  std::string above = parent.empty() ? "devices" : pathOf(parent);
  if (slice && !parent.empty())
    above = fs::relative(fs::canonical(root_ + "/bus/auxiliary/devices/" + parent),
                         fs::canonical(root_));
  const std::string path = above + "/" + name;
  fs::create_directories(root_ + "/" + path);
  if (!driver.empty()) link("bus/vdpa/drivers/" + driver, path + "/driver");
  if (driver == "vhost_vdpa") {
    const std::string device = fmt::format("{}/vhost-vdpa-{}", path, number);
    fs::create_directories(root_ + "/" + device);
    link(device, fmt::format("dev/char/511:{}", number));
  }
  if (driver == "virtio_vdpa") {
    const std::string netdev = path + "/virtio0/net/net-" + name;
    write(netdev + "/operstate", "up\n");
    link(netdev, "class/net/net-" + name);
  }
  link(path, "bus/vdpa/devices/" + name);
}

void SysfsTree::removeVdpa(const std::string& name) {
  const std::string link = root_ + "/bus/vdpa/devices/" + name;
  fs::remove_all(fs::canonical(link));
  fs::remove(link);
  for (const std::string folder : {"/dev/char", "/class/net"}) {
    if (!fs::exists(root_ + folder)) continue;
    for (const auto& entry : fs::directory_iterator(root_ + folder))
      if (!fs::exists(entry.path())) fs::remove(entry.path());
  }
}

void SysfsTree::addPart(const std::string& function, const std::string& name) {
  const std::string path = pathOf(function) + "/" + name;
  fs::create_directories(root_ + "/" + path);
  link(path, "bus/auxiliary/devices/" + name);
}

void SysfsTree::addSlice(const std::string& function, const std::string& name, int number) {
  const std::string path = pathOf(function) + "/" + name;
  write(path + "/sfnum", fmt::format("{}\n", number));
  link(path, "bus/auxiliary/devices/" + name);
}

void SysfsTree::addLoadedPf(unsigned bus, unsigned vfs) {
  const std::string pf = fmt::format("0000:{:02x}:00.0", bus);
  add({.address = pf, .driver = "virtio-pci", .numaNode = std::to_string(bus % 2)});
  addNetdev(pf, fmt::format("eth{}", bus));
  std::vector<std::string> addresses;
  for (unsigned i = 0; i < vfs; ++i) {
    const unsigned n = i + 8;
    addresses.push_back(fmt::format("0000:{:02x}:{:02x}.{}", bus, n / 8, n % 8));
    add({.address = addresses.back(),
         .driver = "vp-vdpa",
         .numaNode = std::to_string(bus % 2),
         .iommuGroup = static_cast<int>(vdpaDevices_)});
    addVdpa(addresses.back(), fmt::format("vdpa{}", vdpaDevices_), "vhost_vdpa",
            static_cast<int>(vdpaDevices_));
    ++vdpaDevices_;
  }
  setVfs(pf, addresses);
}

}  // namespace vdpa
