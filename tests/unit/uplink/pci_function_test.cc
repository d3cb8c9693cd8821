// The conditions for a PCI function to be an uplink, on a generated node.
#include "deviceplugin/datapath/switch/uplink/pci_function.h"

#include <catch2/catch.hpp>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa::vswitch;
using Catch::Matchers::Contains;
using Catch::Matchers::Equals;

namespace fs = std::filesystem;

namespace {

class Node {
 public:
  Node() {
    fs::create_directories(function());
    std::ofstream(function() / "vendor") << "0x8086\n";
    std::ofstream(function() / "device") << "0x1572\n";
    fs::create_directories(dev() / "vfio");
  }
  fs::path sysfs() const { return fs::path(directory_.path()) / "sys"; }
  fs::path dev() const { return fs::path(directory_.path()) / "dev"; }
  fs::path function() const { return sysfs() / "bus/pci/devices/0000:03:00.0"; }

  void bind(const std::string& driver) const {
    fs::remove(function() / "driver");
    fs::create_symlink("../../drivers/" + driver, function() / "driver");
  }
  void addGroup() const {
    fs::create_directories(sysfs() / "kernel/iommu_groups/7");
    fs::create_symlink(sysfs() / "kernel/iommu_groups/7", function() / "iommu_group");
  }
  void addGroupFile() const { std::ofstream(dev() / "vfio/7"); }

  // Empty: it can be used.
  std::string problem(const std::string& address = "0000:03:00.0") const {
    try {
      checkUplinkFunction(sysfs(), dev(), address);
      return "";
    } catch (const std::exception& error) {
      return error.what();
    }
  }

 private:
  const vdpa::TemporaryDirectory directory_;
};

}  // namespace

TEST_CASE("a function that can't be an uplink is refused with what to do") {
  const Node node;
  CHECK_THAT(node.problem("0000:04:00.0"),
             Equals("uplink PCI function 0000:04:00.0 is not on this node; check 'uplink' in the "
                    "configuration"));
  CHECK_THAT(node.problem(), Contains("uplink PCI function 0000:03:00.0 (8086:1572) is bound to no "
                                      "kernel driver, but must be bound to vfio-pci: write "
                                      "vfio-pci to ") &&
                                 Contains("/bus/pci/devices/0000:03:00.0/driver_override"));
  node.bind("i40e");
  CHECK_THAT(node.problem(), Contains("is bound to i40e"));
  node.bind("mlx5_core");
  CHECK_THAT(node.problem(), Contains("give its netdev as the uplink instead"));
  node.bind("vfio-pci");
  CHECK_THAT(node.problem(), Contains("has no IOMMU group") && Contains("intel_iommu=on"));
  node.addGroup();
  CHECK_THAT(node.problem(),
             Contains("cannot open ") && Contains("/dev/vfio/7, by which uplink PCI "
                                                  "function 0000:03:00.0"));
  node.addGroupFile();
  CHECK(node.problem() == "");
}
