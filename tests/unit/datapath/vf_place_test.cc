// Where sysfs has a VF's PF.
#include "deviceplugin/datapath/hardware/vf_place.h"

#include <catch2/catch.hpp>

#include <optional>
#include <string>
#include <vector>

#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

constexpr const char* kPf = "0000:65:00.0";

class Tree {
 public:
  Tree() {
    tree_.add({.address = kPf, .driver = "mlx5_core"});
    for (int i = 0; i < 12; ++i) {
      tree_.add({.address = vf(i), .driver = "mlx5_vdpa"});
      tree_.link(tree_.pathOf(kPf), tree_.pathOf(vf(i)) + "/physfn");
      vfs_.push_back(vf(i));
    }
    tree_.setVfs(kPf, vfs_);
  }
  static std::string vf(int number) {
    return "0000:65:" + std::string(number < 6 ? "01." : "02.") + std::to_string(number % 6);
  }
  // Below the PF.
  void addNetdev(const std::string& folder, const std::string& name, const std::string& index,
                 const std::string& port = "") {
    const std::string path = tree_.pathOf(kPf) + "/" + folder + "/" + name;
    tree_.write(path + "/ifindex", index + "\n");
    if (!port.empty()) tree_.write(path + "/phys_port_name", port + "\n");
  }
  std::optional<VfPlace> find(const std::string& address) const {
    return findVfPlace(tree_.path(), address);
  }

 private:
  SysfsTree tree_;
  std::vector<std::string> vfs_;
};

}  // namespace

TEST_CASE("VF's place: the PF's own netdev, and the VF's number") {
  Tree tree;
  SECTION("among representors") {
    tree.addNetdev("net", "eth7", "9", "pf0vf1");
    tree.addNetdev("net", "eth8", "10", "c1pf0sf2");
    tree.addNetdev("net", "ens1f0", "8", "p0");
  }
  SECTION("below a virtio device") {
    tree.addNetdev("virtio3/net", "ens1f0", "8");
  }
  for (const int number : {0, 1, 11}) {
    const auto place = tree.find(Tree::vf(number));
    REQUIRE(place);
    CHECK(place->pf == "ens1f0");
    CHECK(place->pfIndex == 8);
    CHECK(place->number == static_cast<unsigned>(number));
    CHECK(describe(*place) == "VF " + std::to_string(number) + " of ens1f0 (mlx5_core)");
  }
  CHECK_FALSE(tree.find(kPf));
  CHECK_FALSE(tree.find("0000:99:00.0"));
  CHECK_FALSE(tree.find(""));
}

TEST_CASE("VF's place: none while the PF has no netdev here") {
  Tree tree;
  CHECK_FALSE(tree.find(Tree::vf(0)));
  tree.addNetdev("net", "eth7", "9", "pf0vf1");
  CHECK_FALSE(tree.find(Tree::vf(0)));
}
