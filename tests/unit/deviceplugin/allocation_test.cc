// Allocate's look-up, device health, and the device-info files.
#include "deviceplugin/kubelet/allocation.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/atomic_file.h"

using namespace vdpa;

namespace {

struct Scene {
  Scene()
      : directory(makeDirectory()),
        files(directory + "/dp"),
        list({{"nic-0"}, {"nic-1"}}),
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
  scene.list.setDevices({{"nic-0"}, {"nic-2"}});
  CHECK(scene.list.healthOf("nic-0").healthy);
  CHECK_FALSE(scene.list.healthOf("nic-2").healthy);
  CHECK(scene.list.healthyCount() == 1);
  scene.list.resend();
  CHECK(scene.list.current().second == version + 2);
}

TEST_CASE("files of withdrawn devices go, those of others stay") {
  Scene scene;
  for (const char* id : {"nic-0", "nic-1"}) scene.files.write("vdpa.io/nic", id);
  scene.files.write("vdpa.io/nic-b", "nic-b-0");
  scene.files.removeOthers("vdpa.io/nic", {"nic-1"});
  CHECK_FALSE(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-nic-0-device.json"));
  CHECK(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-nic-1-device.json"));
  CHECK(std::filesystem::exists(scene.directory + "/dp/vdpa.io-nic-b-nic-b-0-device.json"));
}
