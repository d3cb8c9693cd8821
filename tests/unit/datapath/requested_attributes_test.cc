// When a device is remade for a network, with which attributes, and the errors if it can't be.
#include "deviceplugin/datapath/hardware/requested_attributes.h"

#include <catch2/catch.hpp>

#include <optional>

#include "common/backend.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

const MacAddress kMac = "02:00:00:00:00:01"_mac;
const MacAddress kOther = "52:54:00:00:00:01"_mac;
const VdpaRules kMlx5{"mlx5_core", true, true, false};
const VdpaRules kSimulator{"vdpasim_net", true, true, true};
const VdpaRules kVirtio{"vp-vdpa", false, false, false};

DeviceConfig deviceOf(const VdpaRules& rules, Attach attach = Attach::vhostUser) {
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.attach = attach;
  device.vdpa = "vdpa7";
  device.provision = true;
  device.attributes = {0, 0, 0, {}};
  device.rules = rules;
  return device;
}

// The MAC with which it is made, for one that is requested or chosen by us; absent: none.
std::optional<MacAddress> macFor(const DeviceConfig& device, bool asked,
                                 const std::optional<MacAddress>& now) {
  PortSettings port;
  port.mac = kMac;
  return attributesFor("nic", device, port, asked, {now, 1500}).mac;
}

unsigned mtuFor(const DeviceConfig& device, unsigned asked) {
  PortSettings port;
  port.mtu = asked;
  return attributesFor("nic", device, port, false, {kOther, 1500}).mtu;
}

}  // namespace

TEST_CASE("a MAC that is asked for remakes what takes one only then") {
  CHECK(macFor(deviceOf(kMlx5), true, kOther) == kMac);
  CHECK(macFor(deviceOf(kMlx5), true, {}) == kMac);
  CHECK_FALSE(macFor(deviceOf(kMlx5), true, kMac));         // it has it
  CHECK_FALSE(macFor(deviceOf(kSimulator), true, kOther));  // it can be set
  CHECK(macFor(deviceOf(kSimulator), true, {}) == kMac);    // and wouldn't be visible
  CHECK_FALSE(macFor(deviceOf(kVirtio), true, kOther));
}

TEST_CASE("a MAC that nobody asks for is given to a device that has none, and else not") {
  CHECK(macFor(deviceOf(kMlx5), false, {}) == kMac);
  CHECK_FALSE(macFor(deviceOf(kMlx5), false, kOther));
  CHECK_FALSE(macFor(deviceOf(kVirtio), false, {}));
}

TEST_CASE("a netdev makes a MAC of its own, and gets one that is asked for") {
  CHECK_FALSE(macFor(deviceOf(kMlx5, Attach::virtioVdpa), false, {}));
  CHECK(macFor(deviceOf(kMlx5, Attach::virtioVdpa), true, {}) == kMac);
}

TEST_CASE("an MTU that is asked for remakes what takes one only then") {
  CHECK(mtuFor(deviceOf(kMlx5), 9000) == 9000);
  CHECK(mtuFor(deviceOf(kMlx5), 1400) == 1400);
  CHECK(mtuFor(deviceOf(kMlx5), 1500) == 0);
  CHECK(mtuFor(deviceOf(kMlx5), 0) == 0);
  CHECK(mtuFor(deviceOf(kVirtio), 9000) == 0);
}

TEST_CASE("what was handed out, or made by somebody else, is never remade") {
  DeviceConfig device = deviceOf(kMlx5, Attach::vhostVdpa);
  CHECK_FALSE(mayRemake(device));
  CHECK_FALSE(macFor(device, true, {}));
  CHECK_THAT(whyNotRemade(device, "mac"), Catch::Contains("its driver mlx5_core") &&
                                              Catch::Contains("`attach: vhost-vdpa`") &&
                                              Catch::Contains("remove mac"));
  device = deviceOf(kMlx5);
  device.provision = false;
  CHECK_FALSE(mayRemake(device));
  CHECK(mtuFor(device, 9000) == 0);
  CHECK_THAT(whyNotRemade(device, "mac"), Catch::Contains("use `provision: vdpa`"));
  device.provision = true;
  CHECK_THAT(whyNotRemade(device, "mac"), Catch::Contains("`vdpa dev del vdpa7`"));
}

TEST_CASE("the MTU of a handed out character device is compared, since nobody else does") {
  const DeviceConfig handedOut = deviceOf(kMlx5, Attach::vhostVdpa);
  CHECK_THROWS_WITH(
      checkMtu("nic", handedOut, 9000, {kMac, 1500}),
      Catch::StartsWith(
          "cannot set up nic: mtu 9000 was requested, but vDPA device vdpa7 has 1500: "
          "its driver mlx5_core takes it when the device is made, but with `attach: "
          "vhost-vdpa`") &&
          Catch::Contains("remove mtu"));
  CHECK_THROWS_WITH(checkMtu("nic", deviceOf(kVirtio, Attach::vhostVdpa), 9000, {kMac, 1500}),
                    Catch::EndsWith("has 1500"));
  CHECK_NOTHROW(checkMtu("nic", handedOut, 1500, {kMac, 1500}));
  CHECK_NOTHROW(checkMtu("nic", handedOut, 1500, {kMac, 0}));
  CHECK_THROWS_WITH(checkMtu("nic", handedOut, 1501, {kMac, 0}), Catch::Contains("shows no MTU"));
  CHECK_NOTHROW(checkMtu("nic", deviceOf(kMlx5), 9000, {kMac, 1500}));  // its worker compares them
}
