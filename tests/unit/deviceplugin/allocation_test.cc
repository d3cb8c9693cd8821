// Allocate's look-up, device health, and the device-info files.
#include "deviceplugin/kubelet/allocation.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <initializer_list>
#include <string>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "deviceplugin.pb.h"
#include "deviceplugin/resources/device.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

Device port(const std::string& id) {
  Device device;
  device.id = id;
  return device;
}

struct Scene {
  Scene()
      : directory(makeDirectory()),
        files(directory + "/dp"),
        list({port("nic-0"), port("nic-1")}, true),
        allocation("vdpa.io/nic", "/run/vdpa", list, files) {
    list.setAllHealth({true, ""});
  }
  ~Scene() { std::filesystem::remove_all(directory); }
  static std::string makeDirectory() {
    std::string pattern = "/tmp/vdpa-allocation-XXXXXX";
    return ::mkdtemp(pattern.data());
  }
  v1beta1::ContainerAllocateResponse allocate(std::initializer_list<const char*> ids) {
    v1beta1::ContainerAllocateRequest request;
    for (const char* id : ids) request.add_devices_ids(id);
    return allocation.allocate(request);
  }

  std::string directory;
  DeviceInfoFiles files;
  DeviceList list;
  Allocation allocation;
};

}  // namespace

TEST_CASE("an answer holds one mount a device and the variables") {
  Scene scene;
  const auto answer = scene.allocate({"nic-1", "nic-0"});
  CHECK(answer.envs().at("VDPA_IO_NIC") == "nic-1,nic-0");
  CHECK(answer.envs().at("VDPA_IO_NIC_SOCKETS") ==
        "/run/vdpa/nic-1/vhost.sock,/run/vdpa/nic-0/vhost.sock");
  CHECK(answer.mounts_size() == 2);
  CHECK(answer.devices_size() == 0);
  CHECK(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-nic-1-device.json"));
}

TEST_CASE("unknown, repeated and unhealthy devices are refused") {
  Scene scene;
  CHECK_THROWS_WITH(scene.allocate({"nic-7"}), Catch::Contains("no device nic-7"));
  CHECK_THROWS_WITH(scene.allocate({"nic-0", "nic-0"}), Catch::Contains("twice"));
  scene.list.setHealth({{"nic-0", {false, "its switch is gone"}}});
  CHECK_THROWS_WITH(scene.allocate({"nic-0"}), Catch::Contains("its switch is gone"));
  CHECK_NOTHROW(scene.allocate({"nic-1"}));
}

TEST_CASE("the list's version grows with real changes only, and new devices start unhealthy") {
  Scene scene;
  const auto version = scene.list.current().second;
  scene.list.setHealth({{"nic-0", {true, ""}}, {"nobody", {false, ""}}});
  CHECK(scene.list.current().second == version);
  CHECK(scene.list.setDevices({port("nic-0"), port("nic-2")}));
  CHECK(scene.list.healthOf("nic-0").healthy);
  CHECK_FALSE(scene.list.healthOf("nic-2").healthy);
  CHECK(scene.list.healthyCount() == 1);
  scene.list.resend();
  CHECK(scene.list.current().second == version + 2);
}

TEST_CASE("files of withdrawn devices go, those of others stay") {
  Scene scene;
  for (const char* id : {"nic-0", "nic-1"}) scene.files.write("vdpa.io/nic", port(id));
  scene.files.write("vdpa.io/nic-b", port("nic-b-0"));
  scene.files.removeOthers("vdpa.io/nic", {"nic-1"});
  CHECK_FALSE(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-nic-0-device.json"));
  CHECK(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-nic-1-device.json"));
  CHECK(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-b-nic-b-0-device.json"));
}

TEST_CASE("a character device is handed over with its node") {
  Scene scene;
  Device device = port("0000:65:00.2");
  device.backend = BackendKind::kernel;
  device.attach = Attach::vhostVdpa;
  device.vdpa = "vdpa2";
  device.pciAddress = device.id;
  device.characterDevice = "vhost-vdpa-4";
  scene.list.setDevices({device});
  scene.list.setAllHealth({true, ""});
  const auto answer = scene.allocate({"0000:65:00.2"});
  REQUIRE(answer.devices_size() == 1);
  CHECK(answer.devices(0).host_path() == "/dev/vhost-vdpa-4");
  CHECK(answer.devices(0).permissions() == "rw");
  CHECK(answer.envs().at("VDPA_IO_NIC_SOCKETS") == "/dev/vhost-vdpa-4");
  const auto info =
      nlohmann::json::parse(readFile(scene.directory + "/dp/vdpa.io-nic-0000:65:00.2-device.json"));
  CHECK(info == nlohmann::json::parse(R"({"type": "vdpa", "version": "1.1.0", "vdpa": {
    "parent-device": "vdpa2", "driver": "vhost", "path": "/dev/vhost-vdpa-4",
    "pci-address": "0000:65:00.2"}})"));

  device.characterDevice = "vhost-vdpa-5";  // remade
  scene.list.setDevices({device});
  scene.allocate({"0000:65:00.2"});
  CHECK_THAT(readFile(scene.directory + "/dp/vdpa.io-nic-0000:65:00.2-device.json"),
             Catch::Contains("vhost-vdpa-5"));
}

TEST_CASE("what discovery says against a device outweighs the datapath's word") {
  Scene scene;
  Device device = port("nic-0");
  device.unhealthy = "its PF eth1 has no link";
  device.numaNode = 1;
  scene.list.setDevices({device});
  CHECK_FALSE(scene.list.healthOf("nic-0").healthy);
  CHECK_THROWS_WITH(scene.allocate({"nic-0"}), Catch::Contains("its PF eth1 has no link"));
  const auto message = scene.list.current().first;
  REQUIRE(message->devices_size() == 1);
  CHECK(message->devices(0).health() == "Unhealthy");
  CHECK(message->devices(0).topology().nodes(0).id() == 1);
  device.unhealthy = "";
  scene.list.setDevices({device});
  CHECK(scene.list.healthOf("nic-0").healthy);
}

TEST_CASE("without topology the kubelet is told no NUMA node") {
  Device device = port("nic-0");
  device.numaNode = 1;
  const auto nodes = [&](bool topology) {
    return DeviceList({device}, topology).current().first->devices(0).topology().nodes_size();
  };
  CHECK(nodes(true) == 1);
  CHECK(nodes(false) == 0);
}
