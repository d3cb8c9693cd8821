#include "deviceplugin/ping/pod_device.h"

#include <catch2/catch.hpp>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/json.h"
#include "common/mac_address.h"
#include "tests/unit/mac_literal.h"

namespace vdpa::ping {
namespace {

// What a pod has below /run/vdpa.
class Pod {
 public:
  Pod() {
    std::string name = "/tmp/vdpa-ping-XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~Pod() { std::filesystem::remove_all(directory_); }
  Pod(const Pod&) = delete;
  Pod& operator=(const Pod&) = delete;

  const std::string& directory() const { return directory_; }

  void add(const std::string& id, const nlohmann::json& changes = {}, bool socket = true) const {
    nlohmann::json description{{"network", "default/fast"},
                               {"backend", "kernel"},
                               {"vlan", 100},
                               {"mac", "02:00:00:00:00:01"},
                               {"mtu", 9000},
                               {"queueSize", 300},
                               {"vlanTrunk", ""}};
    description.update(changes.is_null() ? nlohmann::json::object() : changes);
    std::filesystem::create_directory(directory_ + "/" + id);
    std::ofstream(directory_ + "/" + id + "/device.json") << jsonText(description);
    if (socket) std::ofstream(directory_ + "/" + id + "/vhost.sock");
  }

 private:
  std::string directory_;
};

void checkError(const Pod& pod, const std::string& id, const std::string& part) {
  CHECK_THROWS_WITH(findDevice(pod.directory(), id), Catch::Contains(part));
}

TEST_CASE("the only device of a pod") {
  const Pod pod;
  checkError(pod, "", "no device below " + pod.directory());
  pod.add("nic-0");
  std::filesystem::create_directory(pod.directory() + "/nic-1");  // its network is missing
  const auto device = findDevice(pod.directory(), "");
  CHECK(device.id == "nic-0");
  CHECK(device.socket == pod.directory() + "/nic-0/vhost.sock");
  CHECK(device.network == "default/fast");
  CHECK(device.mac == "02:00:00:00:00:01"_mac);
  CHECK(device.vlan == 100);

  const auto driver = driverOptions(device);
  CHECK(driver.ringSize == 256);  // a power of two, and not above the device's own
  CHECK(driver.transmitBytes == 9014);
  CHECK(driver.receiveBytes == 12 + 9014 + 4);
}

TEST_CASE("one of several devices must be named") {
  const Pod pod;
  pod.add("nic-0");
  pod.add("nic-1");
  checkError(pod, "", "name one of nic-0, nic-1 with --device");
  CHECK(findDevice(pod.directory(), "nic-1").id == "nic-1");
  checkError(pod, "nic-2", "is nic-2 a device of this pod?");
}

TEST_CASE("devices that vdpa-ping cannot use") {
  const Pod pod;
  pod.add("direct", {}, false);
  checkError(pod, "direct", "direct has no socket");
  pod.add("trunk", {{"vlan", 0}, {"vlanTrunk", "100-110"}});
  checkError(pod, "trunk", "only frames with the tags 100-110");
  pod.add("native", {{"vlan", 7}, {"vlanTrunk", "100-110"}});
  CHECK(findDevice(pod.directory(), "native").vlan == 7);
  pod.add("broken", {{"mac", 7}});
  checkError(pod, "broken", "device.json");
}

TEST_CASE("rings have at most 1,024 entries") {
  PodDevice device;
  device.mtu = 1500;
  device.queueSize = 32768;
  CHECK(driverOptions(device).ringSize == 1024);
  device.queueSize = 256;
  CHECK(driverOptions(device).ringSize == 256);
  device.backend = "software";
  CHECK(driverOptions(device).ringSize == 1024);
}

}  // namespace
}  // namespace vdpa::ping
