// A node's state from its sysfs: existing cards, and broken trees.
#include "deviceplugin/discovery/sysfs_scan.h"

#include <catch2/catch.hpp>
#include <time.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <vector>

#include "deviceplugin/discovery/snapshot.h"
#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

Snapshot scan(const SysfsTree& tree) {
  Snapshot snapshot;
  scanSysfs(tree.path(), snapshot);
  return snapshot;
}

// Of this thread only, whatever else the machine does.
double secondsToScan(const SysfsTree& tree) {
  const auto used = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double begin = used();
  scan(tree);
  return used() - begin;
}

}  // namespace

TEST_CASE("an mlx5 card in switchdev mode: uplink and representors are the PF's, not the VFs'") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.0",
            .ids = "15B3:101D",
            .subsystem = "15B3:0001",
            .driver = "mlx5_core",
            .numaNode = "1",
            .iommuGroup = 12});
  tree.add({.address = "0000:65:00.2",
            .ids = "15B3:101E",
            .driver = "mlx5_core",
            .numaNode = "1",
            .iommuGroup = 13,
            .netdevs = {"ens1f0v0"}});
  tree.add({.address = "0000:65:00.3", .ids = "15B3:101E", .driver = "mlx5_core", .numaNode = "1"});
  tree.setVfs("0000:65:00.0", {"0000:65:00.2", "0000:65:00.3"});
  tree.addNetdev("0000:65:00.0", "ens1f0np0", "p0");
  tree.addNetdev("0000:65:00.0", "ens1f0_0", "pf0vf0");
  tree.addNetdev("0000:65:00.0", "ens1f0_1", "pf0vf1");
  const auto found = scan(tree);
  CHECK(found.pfNetdevs == std::map<std::string, std::string>{{"0000:65:00.0", "ens1f0np0"}});
  const auto& pf = found.functions.at("0000:65:00.0");
  CHECK(pf.vfCount == 2);
  CHECK(pf.vendor == "15b3");
  CHECK(pf.device == "101d");
  CHECK(pf.subsystemDevice == "0001");
  CHECK(pf.numaNode == 1);
  CHECK(pf.iommuGroup == 12u);
  CHECK(pf.netdevs == std::vector<std::string>{"ens1f0np0"});
  const auto& vf = found.functions.at("0000:65:00.3");
  CHECK(vf.pf == "0000:65:00.0");
  CHECK(vf.numaNode == 1);
  CHECK(vf.vfIndex == 1);
  CHECK(vf.netdevs.empty());
  CHECK_FALSE(vf.iommuGroup);
  CHECK(found.functions.at("0000:65:00.2").netdevs == std::vector<std::string>{"ens1f0v0"});
  CHECK(found.skipped.empty());
}

TEST_CASE("a scalable function and the vDPA device on it") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.0",
            .ids = "15B3:101D",
            .driver = "mlx5_core",
            .numaNode = "1",
            .netdevs = {"ens1f0"}});
  tree.addSlice("0000:65:00.0", "mlx5_core.sf.4", 88);
  tree.addSlice("0000:65:00.0", "mlx5_core.eth.0", 0);  // a part of the driver
  tree.addVdpa("mlx5_core.sf.4", "vdpa4", "vhost_vdpa", 2);
  const auto found = scan(tree);
  REQUIRE(found.auxiliary.size() == 1);
  const auto& slice = found.auxiliary.at("mlx5_core.sf.4");
  CHECK(slice.pciAddress == "0000:65:00.0");
  CHECK(slice.sfNumber == 88u);
  CHECK(slice.numaNode == 1);
  const auto& vdpa = found.vdpaDevices.at("vdpa4");
  CHECK(vdpa.pciAddress == "0000:65:00.0");
  CHECK(vdpa.characterDevice == "vhost-vdpa-2");
}

TEST_CASE("a function's part on the auxiliary bus, as pds_core's, is no slice of it") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.2", .ids = "1DD8:100B", .driver = "pds_core"});
  tree.addPart("0000:65:00.2", "pds_core.vDPA.3");
  tree.addPart("0000:65:00.2", "pds_core.fwctl.3");
  const auto found = scan(tree);
  CHECK(found.auxiliary.empty());
  CHECK(found.parts == std::map<std::string, std::string>{{"0000:65:00.2", "pds_core.vDPA.3"}});
}

TEST_CASE("vDPA devices under both bus drivers, under none, and without hardware") {
  SysfsTree tree;
  for (const char* vf : {"0000:41:00.1", "0000:41:00.2", "0000:41:00.3"})
    tree.add({.address = vf, .driver = "vp-vdpa"});
  tree.addVdpa("0000:41:00.1", "vdpa1", "vhost_vdpa", 7);
  tree.addVdpa("0000:41:00.2", "vdpa2", "virtio_vdpa");
  tree.addVdpa("0000:41:00.3", "vdpa3", "");
  tree.addVdpa("", "sim0", "vhost_vdpa", 1);
  const auto found = scan(tree);
  CHECK(found.vdpaDevices.at("vdpa1").busDriver == "vhost_vdpa");
  CHECK(found.vdpaDevices.at("vdpa1").characterDevice == "vhost-vdpa-7");
  CHECK(found.vdpaDevices.at("vdpa2").busDriver == "virtio_vdpa");
  CHECK(found.vdpaDevices.at("vdpa2").characterDevice == "");
  CHECK(found.vdpaDevices.at("vdpa2").netdevs == std::vector<std::string>{"net-vdpa2"});
  CHECK(found.vdpaDevices.at("vdpa3").busDriver == "");
  CHECK(found.vdpaDevices.at("sim0").pciAddress == "");
}

TEST_CASE("other cards' VFs") {
  const auto [ids, subsystem, driver] = GENERATE(table<std::string, std::string, std::string>({
      {"8086:154C", "8086:0000", "iavf"},      // i40e
      {"8086:1889", "8086:0000", "iavf"},      // ice
      {"1AF4:1041", "8086:001A", "vfio-pci"},  // ifc
      {"1AF4:1041", "1AF4:1100", "virtio-pci"},
  }));
  SysfsTree tree;
  tree.add({.address = "0000:01:10.0", .ids = ids, .subsystem = subsystem, .driver = driver});
  const auto found = scan(tree).functions.at("0000:01:10.0");
  CHECK(found.driver == driver);
  CHECK(found.vendor + found.device == std::string(ids[0] == '8' ? "8086" : "1af4") +
                                           (ids.substr(5) == "154C" ? "154c" : ids.substr(5)));
  CHECK(found.subsystemVendor == (subsystem[0] == '8' ? "8086" : "1af4"));
}

TEST_CASE("functions that are no network devices are left out, unless they have a vDPA device") {
  SysfsTree tree;
  tree.add({.address = "0000:00:1f.2", .ids = "8086:2922", .driver = "ahci", .classCode = "10601"});
  tree.add(
      {.address = "0000:05:00.1", .ids = "1AF4:1042", .driver = "vp-vdpa", .classCode = "10000"});
  tree.addVdpa("0000:05:00.1", "vdpa0", "vhost_vdpa");
  const auto found = scan(tree);
  CHECK_FALSE(found.functions.contains("0000:00:1f.2"));
  CHECK(found.functions.contains("0000:05:00.1"));
}

TEST_CASE("a function without driver, IOMMU group or NUMA node") {
  const std::string node = GENERATE("-1", "", "garbage", "99999999999");
  SysfsTree tree;
  tree.add({.address = "0000:41:00.1", .numaNode = node});
  const auto found = scan(tree);
  const auto& vf = found.functions.at("0000:41:00.1");
  CHECK(vf.driver == "");
  CHECK(vf.numaNode == -1);
  CHECK_FALSE(vf.iommuGroup);
  CHECK(found.skipped.empty());
}

TEST_CASE("what is half removed or no function is skipped with a reason") {
  SysfsTree tree;
  tree.add({.address = "0000:41:00.0", .driver = "virtio-pci"});
  tree.add({.address = "0000:41:00.1"});
  tree.add({.address = "0000:41:00.2"});
  tree.setVfs("0000:41:00.0", {"0000:41:00.1", "0000:41:00.2", "0000:41:00.3"});
  std::filesystem::remove(tree.path() + "/" + tree.pathOf("0000:41:00.1") + "/uevent");
  tree.write(tree.pathOf("0000:41:00.2") + "/uevent", "PCI_CLASS=zz\nPCI_ID=1AF4-1041\n=\n\n");
  tree.write("bus/pci/devices/unfinished", "");
  std::filesystem::create_symlink(tree.path() + "/nowhere",
                                  tree.path() + "/bus/vdpa/devices/vdpa9");
  tree.write("dev/char/511:8", "");
  std::filesystem::create_symlink("vhost-vdpa-9", tree.path() + "/dev/char/511:9");
  const auto found = scan(tree);
  CHECK(found.functions.size() == 1);
  CHECK(found.vdpaDevices.empty());
  const auto reason = [&](const std::string& path) {
    const auto entry = found.skipped.find(tree.path() + path);
    return entry == found.skipped.end() ? std::string("none") : entry->second;
  };
  CHECK(reason("/bus/pci/devices/0000:41:00.1") == "it vanished, or its uevent can't be read");
  CHECK(reason("/bus/pci/devices/0000:41:00.2") == "its uevent lacks class or IDs");
  CHECK(reason("/bus/pci/devices/unfinished") == "its name is not a PCI address");
  CHECK(reason("/bus/pci/devices/0000:41:00.0/virtfn0") == "it does not name a VF");
  CHECK(reason("/bus/pci/devices/0000:41:00.0/virtfn2") == "it does not name a VF");
  CHECK(reason("/bus/vdpa/devices/vdpa9") == "it vanished while being read");
}

TEST_CASE("a VF without its PF, and netdevs of pods") {
  SysfsTree tree;
  tree.add({.address = "0000:41:00.1", .driver = "virtio-pci", .netdevs = {"eth5"}});
  tree.addVirtual("veth1");
  const auto found = scan(tree);
  CHECK(found.functions.at("0000:41:00.1").pf == "");
  CHECK(found.netdevs.size() == 1);
  CHECK(found.netdevs.at("eth5").linkUp);
}

TEST_CASE("a port's link") {
  const auto [state, up] = GENERATE(table<std::string, bool>(
      {{"up", true}, {"unknown", true}, {"down", false}, {"lowerlayerdown", false}, {"", false}}));
  SysfsTree tree;
  tree.add({.address = "0000:41:00.0", .driver = "virtio-pci"});
  tree.addNetdev("0000:41:00.0", "eth1", "", state);
  CHECK(scan(tree).netdevs.at("eth1").linkUp == up);
}

TEST_CASE("no sysfs at all") {
  Snapshot snapshot;
  scanSysfs("/nowhere", snapshot);
  CHECK(snapshot.functions.empty());
  CHECK(snapshot.skipped.at("/nowhere/bus/pci/devices") == "the kernel shows no PCI bus");
}

TEST_CASE("1,024 VFs on 8 PFs take as long as four times 256") {
  SysfsTree few, many;
  for (unsigned bus = 1; bus <= 8; ++bus) {
    few.addLoadedPf(bus, 32);
    many.addLoadedPf(bus, 128);
  }
  const auto found = scan(many);
  CHECK(found.functions.size() == 8 + 1024);
  CHECK(found.vdpaDevices.size() == 1024);
  CHECK(found.functions.at("0000:08:10.7").pf == "0000:08:00.0");
  CHECK(found.functions.at("0000:08:10.7").vfIndex == 127);
  double ofFew = 1e9, ofMany = 1e9;
  for (int i = 0; i < 7; ++i) {
    ofFew = std::min(ofFew, secondsToScan(few));
    ofMany = std::min(ofMany, secondsToScan(many));
  }
  CHECK(ofMany < 8 * ofFew);  // a quadratic cost would grow sixteenfold
}
