// The settings that a hardware device can have, and those that need an answer from the device.
#include "deviceplugin/datapath/hardware/requested_settings.h"

#include <catch2/catch.hpp>

#include <optional>

#include "common/port_settings.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

template <typename Change>
PortSettings with(Change change) {
  PortSettings settings;
  change(settings);
  return hardwareSettings("0000:65:00.2", settings);
}

}  // namespace

TEST_CASE("hardware: what asks for nothing is no reason to refuse") {
  CHECK_NOTHROW(with([](auto& s) {
    s.vlan = 0;
    s.vlanQos = 0;
    s.vlanProto = VlanProtocol::dot1q;
    s.spoofCheck = false;
    s.trust = false;
    s.minTxRate = 0;
    s.maxTxRate = 0;
    s.linkState = LinkState::automatic;
    s.vlanTrunk = VlanRanges();
    s.maxRxRate = 0;
    s.burst = 0;
  }));
}

TEST_CASE("hardware: a value that no device can have is named, with the device") {
  const auto refused = [](const std::string& setting, auto change) {
    CHECK_THROWS_WITH(with(change), Catch::StartsWith("cannot set up 0000:65:00.2: " + setting));
  };
  refused("vlan 4095", [](auto& s) { s.vlan = 4095; });
  refused("vlanQoS 8", [](auto& s) {
    s.vlan = 7;
    s.vlanQos = 8;
  });
  refused("vlanQoS 3 needs a vlan", [](auto& s) { s.vlanQos = 3; });
  refused("vlanQoS 3 needs a vlan", [](auto& s) {
    s.vlan = 0;
    s.vlanQos = 3;
  });
  refused("vlanProto 802.1ad needs a vlan", [](auto& s) { s.vlanProto = VlanProtocol::dot1ad; });
  refused("mtu 67", [](auto& s) { s.mtu = 67; });
}

TEST_CASE("hardware: what only a software port can do is refused by name, with the remedy") {
  const auto refused = [](const std::string& setting, auto change) {
    CHECK_THROWS_WITH(with(change),
                      "cannot set up 0000:65:00.2: " + setting +
                          " is only possible on a software port; remove it from the network's "
                          "configuration");
  };
  refused("vlanTrunk 100-110,200", [](auto& s) { s.vlanTrunk = VlanRanges::parse("200,100-110"); });
  refused("max_rx_rate 5", [](auto& s) { s.maxRxRate = 5; });
  refused("burst 64", [](auto& s) {
    s.maxTxRate = 5;
    s.burst = 64;
  });
}

TEST_CASE("hardware: what is asked for is laid over what there is") {
  PortSettings port = defaultSettings();
  port.mac = "02:00:00:00:00:01"_mac;
  port.vlan = 5;
  port.spoofCheck = true;
  port.mtu = 9000;
  CHECK(hardwareSettings("0000:65:00.2", {}, port) == port);
  PortSettings settings;
  settings.vlan = 7;
  settings.vlanQos = 3;
  settings.vlanProto = VlanProtocol::dot1ad;
  settings.trust = true;
  const auto result = hardwareSettings("0000:65:00.2", settings, port);
  CHECK(result.vlan == 7);
  CHECK(result.vlanQos == 3);
  CHECK(result.vlanProto == VlanProtocol::dot1ad);
  CHECK(result.trust == true);
  CHECK(result.spoofCheck == true);
  CHECK(result.mac == port.mac);
}

TEST_CASE("hardware: the device completes what was not asked for") {
  auto port = with([](auto&) {});
  completeSettings("0000:65:00.2", port, "02:00:00:00:00:01"_mac, 9000);
  CHECK(port.mac == "02:00:00:00:00:01"_mac);
  CHECK(port.mtu == 9000);

  port = with([](auto& s) { s.mtu = 1400; });
  completeSettings("0000:65:00.2", port, std::nullopt, 0);
  CHECK_FALSE(port.mac);
  CHECK(port.mtu == 1400);

  port = with([](auto&) {});
  completeSettings("0000:65:00.2", port, std::nullopt, 0);
  CHECK(port.mtu == 1500);
}

TEST_CASE("hardware: a device with another MAC or a smaller MTU is refused") {
  auto port = with([](auto& s) { s.mac = "02:00:00:00:00:02"_mac; });
  CHECK_THROWS_AS(completeSettings("0000:65:00.2", port, "02:00:00:00:00:01"_mac, 1500),
                  RefusedError);
  CHECK_NOTHROW(completeSettings("0000:65:00.2", port, "02:00:00:00:00:02"_mac, 1500));
  port = with([](auto& s) { s.mtu = 9000; });
  CHECK_THROWS_WITH(completeSettings("0000:65:00.2", port, std::nullopt, 1500),
                    Catch::Contains("mtu 9000 was requested, but the device has 1500"));
}
