// The vdpa bus as sysfs shows it.
#include "deviceplugin/datapath/hardware/vdpa_bus.h"

#include <catch2/catch.hpp>

#include <filesystem>

#include "common/atomic_file.h"
#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;
using namespace vdpa::datapath;

TEST_CASE("a device under each driver, and none") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
  tree.add({.address = "0000:65:00.3", .driver = "vp-vdpa"});
  tree.addVdpa("0000:65:00.2", "vdpa0", "vhost_vdpa", 3);
  tree.addVdpa("", "vdpa1", "");
  tree.addVdpa("0000:65:00.3", "vdpa2", "virtio_vdpa");
  const VdpaBus bus(tree.path(), "/devices-here");

  CHECK(bus.has("vdpa0"));
  CHECK(bus.driver("vdpa0") == "vhost_vdpa");
  CHECK(bus.characterDevice("vdpa0") == "/devices-here/vhost-vdpa-3");
  CHECK(bus.netdev("vdpa0").empty());

  CHECK(bus.driver("vdpa1").empty());
  CHECK(bus.characterDevice("vdpa1").empty());

  CHECK(bus.driver("vdpa2") == "virtio_vdpa");
  CHECK(bus.netdev("vdpa2") == "net-vdpa2");
  CHECK(bus.virtioDevice("vdpa2").starts_with(tree.path() + "/bus/virtio/devices/virtio"));
  CHECK(bus.virtioDevice("vdpa0").empty());

  CHECK_FALSE(bus.has("vdpa9"));
  CHECK(bus.driver("vdpa9").empty());
  CHECK(bus.netdev("vdpa9").empty());
}

TEST_CASE("the netdev of a part of a function is below the function, which does the DMA") {
  SysfsTree tree;
  const std::string vf = "0000:65:00.2";
  tree.add({.address = vf, .driver = "pds_core"});
  tree.addSlice(vf, "pds_core.vDPA.2", 2);
  std::filesystem::create_directory_symlink(
      tree.path() + "/bus/auxiliary",
      tree.path() + "/" + tree.pathOf(vf) + "/pds_core.vDPA.2/subsystem");
  tree.addVdpa("pds_core.vDPA.2", "vdpa0", "");
  const VdpaBus bus(tree.path(), "/devices-here");
  CHECK(bus.netdev("vdpa0").empty());
  tree.write(tree.pathOf(vf) + "/virtio4/net/eth7/operstate", "up\n");
  CHECK(bus.netdev("vdpa0") == "eth7");
  tree.write(tree.pathOf(vf) + "/virtio5/net/eth8/operstate", "up\n");
  CHECK(bus.netdev("vdpa0").empty());  // nothing shows which of them it is
}

TEST_CASE("binding to a bus driver") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
  tree.addVdpa("0000:65:00.2", "vdpa0", "virtio_vdpa");
  for (const char* file : {"vhost_vdpa/bind", "virtio_vdpa/unbind"})
    tree.write(std::string("bus/vdpa/drivers/") + file, "");
  tree.write(tree.pathOf("0000:65:00.2") + "/vdpa0/driver_override", "");
  const VdpaBus bus(tree.path(), "/dev");
  const auto told = [&](const std::string& file) { return readFile(tree.path() + "/" + file); };

  bus.bind("vdpa0", "virtio_vdpa");
  CHECK(told(tree.pathOf("0000:65:00.2") + "/vdpa0/driver_override").empty());

  bus.bind("vdpa0", "vhost_vdpa");
  CHECK(told(tree.pathOf("0000:65:00.2") + "/vdpa0/driver_override") == "vhost_vdpa");
  CHECK(told("bus/vdpa/drivers/virtio_vdpa/unbind") == "vdpa0");
  CHECK(told("bus/vdpa/drivers/vhost_vdpa/bind") == "vdpa0");

  tree.write("bus/vdpa/drivers/virtio_vdpa/unbind", "");
  bus.rebind("vdpa0", "virtio_vdpa");
  CHECK(told("bus/vdpa/drivers/virtio_vdpa/unbind") == "vdpa0");

  CHECK_THROWS_WITH(bus.bind("vdpa0", "other_vdpa"), Catch::Contains("no driver other_vdpa"));
}
