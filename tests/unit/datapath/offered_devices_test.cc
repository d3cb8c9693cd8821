// Invalid sets of devices, each refused with the reason.
#include "deviceplugin/datapath/model/offered_devices.h"

#include <catch2/catch.hpp>

#include <vector>

#include "common/backend.h"
#include "deviceplugin/datapath/model/refused_error.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

DeviceConfig kernelDevice() {
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  device.pciAddress = "0000:65:00.2";
  return device;
}

std::vector<Resource> good() {
  return {{"vdpa.io/nic", {}, {}, {{"nic-0", {}}, {"nic-1", {}}}},
          {"vdpa.io/other", {}, {}, {{"0000:65:00.2", kernelDevice()}}}};
}

template <typename Change>
void refused(const std::string& word, Change change) {
  auto resources = good();
  change(resources);
  CHECK_THROWS_WITH(checkDeviceSet(resources), Catch::Contains(word));
  CHECK_THROWS_AS(checkDeviceSet(resources), RefusedError);
}

}  // namespace

TEST_CASE("sockets whose paths are too long are found when the set is told") {
  auto resources = good();
  CHECK_NOTHROW(checkSocketPaths(resources, {"/run/vdpa", ""}));
  resources[0].name = "vdpa.networking.platform.example-corporation.com/packet-processing";
  resources[0].devices = {{"packet-processing-7", {}}};
  CHECK_THROWS_WITH(checkSocketPaths(resources, {"/run/vdpa", ""}),
                    Catch::Contains("/ports/packet-processing-7.sock, which has 116 bytes; at most "
                                    "107 fit"));
  CHECK_THROWS_AS(checkSocketPaths(resources, {"/run/vdpa", ""}), RefusedError);
  const std::string run = "/run/" + std::string(80, 'x');
  resources[1].devices.at("0000:65:00.2").attach = Attach::vhostVdpa;
  resources.erase(resources.begin());
  CHECK_NOTHROW(checkSocketPaths(resources, {run, ""}));
  resources[0].devices.at("0000:65:00.2").attach = Attach::vhostUser;
  CHECK_THROWS_WITH(checkSocketPaths(resources, {run, ""}),
                    Catch::Contains("workers/0000:65:00.2.sock"));
  CHECK_THROWS_WITH(checkSocketPaths(resources, {run.substr(0, 78), ""}),
                    Catch::Contains("0000:65:00.2/vhost.sock~, which has 111 bytes"));
}

TEST_CASE("sets of devices") {
  CHECK_NOTHROW(checkDeviceSet({}));
  CHECK_NOTHROW(checkDeviceSet(good()));
  refused("'nic'", [](auto& set) { set[0].name = "nic"; });
  refused("'vdpa.io/../x'", [](auto& set) { set[0].name = "vdpa.io/../x"; });
  refused("vdpa.io/nic is given twice", [](auto& set) { set[1].name = "vdpa.io/nic"; });
  refused("nic-1 is given twice", [](auto& set) { set[1].devices = {{"nic-1", {}}}; });
  for (const char* id : {"", ".", "..", "a/b", ".spare-a", "a b", "a\nb"})
    refused("is not a device ID", [&](auto& set) { set[1].devices = {{id, {}}}; });
  refused("0 queue pairs", [](auto& set) { set[0].software.queuePairs = 0; });
  refused("17 queue pairs", [](auto& set) { set[0].software.queuePairs = 17; });
  refused("MTU 67", [](auto& set) { set[0].software.mtu = 67; });
  refused("MTU 9001", [](auto& set) { set[0].software.mtu = 9001; });
  refused("uplink '../x' is not a PCI address",
          [](auto& set) { set[0].software.uplink.pci = "../x"; });
  refused("expected one uplink",
          [](auto& set) { set[0].software.uplink = {.netdev = "eth1", .pci = "0000:03:00.0"}; });
  const auto hardware = [](const char* word, auto change) {
    refused(word, [&](auto& set) { change(set[1].devices.at("0000:65:00.2")); });
  };
  hardware("needs the name of a vDPA device", [](auto& device) { device.vdpa.clear(); });
  hardware("'../x' is not a vDPA device's name", [](auto& device) { device.vdpa = "../x"; });
  hardware("needs a management device", [](auto& device) { device.provision = true; });
  hardware("'65:00.2' is not a PCI address", [](auto& device) { device.pciAddress = "65:00.2"; });
  hardware("'../../x' is not a driver's name", [](auto& device) { device.pciDriver = "../../x"; });
  hardware("needs a driver", [](auto& device) { device.backend = BackendKind::dpdk; });
  hardware("attach vhost-vdpa needs the kernel backend", [](auto& device) {
    device.backend = BackendKind::software;
    device.attach = Attach::vhostVdpa;
  });
  refused("mode 1777", [](auto& set) { set[0].socket.mode = 01777; });
}
