// The valid settings of a software port, and the default MAC address.
#include "deviceplugin/datapath/model/possible_settings.h"

#include <catch2/catch.hpp>

#include <set>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/model/default_mac.h"
#include "deviceplugin/datapath/model/owner.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

template <typename Change>
PortSettings portWith(Change change) {
  PortSettings settings;
  change(settings);
  return softwarePort("nic-0", settings, 1500);
}

template <typename Change>
void refused(const std::string& setting, Change change) {
  CHECK_THROWS_WITH(portWith(change), Catch::StartsWith("cannot set up nic-0: " + setting));
}

}  // namespace

TEST_CASE("what is not asked for has a default") {
  PortSettings port = defaultSettings();
  port.linkState = LinkState::enable;
  CHECK(portWith([](auto&) {}) == port);
}

TEST_CASE("what a software port can do") {
  PortSettings port = defaultSettings();
  port.mac = "02:ab:00:00:00:01"_mac;
  port.vlan = 4094;
  port.mtu = 68;
  port.linkState = LinkState::disable;
  port.spoofCheck = true;
  port.trust = true;
  port.maxTxRate = 1000000;
  port.vlanTrunk = VlanRanges::parse("1-4093");
  port.maxRxRate = 1000000;
  port.burst = 1048576;
  CHECK(portWith([](auto& s) {
          s.mac = "02:ab:00:00:00:01"_mac;
          s.vlan = 4094;
          s.mtu = 68;
          s.linkState = LinkState::disable;
          s.spoofCheck = true;
          s.trust = true;
          s.maxTxRate = 1000000;
          s.vlanTrunk = VlanRanges::parse("1-4093");
          s.maxRxRate = 1000000;
          s.burst = 1048576;
        }) == port);
  CHECK(portWith([](auto& s) { s.linkState = LinkState::enable; }).linkState == LinkState::enable);
  CHECK(portWith([](auto& s) { s.linkState = LinkState::automatic; }).linkState ==
        LinkState::enable);
}

TEST_CASE("what asks for nothing is no reason to refuse") {
  CHECK_NOTHROW(portWith([](auto& s) {
    s.vlanQos = 0;
    s.vlanProto = VlanProtocol::dot1q;
    s.trust = false;
    s.minTxRate = 0;
    s.maxTxRate = 0;
    s.vlanTrunk = VlanRanges();
    s.maxRxRate = 0;
    s.burst = 0;
  }));
}

TEST_CASE("what a software port cannot do is refused by name") {
  refused("vlan 4095", [](auto& s) { s.vlan = 4095; });
  refused("vlanQoS 1", [](auto& s) { s.vlanQos = 1; });
  refused("vlanProto 802.1ad", [](auto& s) { s.vlanProto = VlanProtocol::dot1ad; });
  refused("min_tx_rate 1", [](auto& s) { s.minTxRate = 1; });
  refused("max_tx_rate 1000001", [](auto& s) { s.maxTxRate = 1000001; });
  refused("max_rx_rate 1000001", [](auto& s) { s.maxRxRate = 1000001; });
  refused("burst 1048577: expected 0 to 1048576", [](auto& s) {
    s.maxRxRate = 1;
    s.burst = 1048577;
  });
  refused("burst 1 needs a max_tx_rate or max_rx_rate", [](auto& s) { s.burst = 1; });
  refused("vlan 7 is also in vlanTrunk 5-9", [](auto& s) {
    s.vlan = 7;
    s.vlanTrunk = VlanRanges::parse("5-9");
  });
  refused("mtu 67", [](auto& s) { s.mtu = 67; });
  refused("mtu 1501", [](auto& s) { s.mtu = 1501; });
}

TEST_CASE("default MAC addresses") {
  const auto free = [](const MacAddress&) { return false; };
  Owner owner{"c0", "net1", "/netns", "fast", "default", "pod", "uid"};
  const MacAddress mac = defaultMac(owner, free);
  CHECK(mac == "62:45:be:5d:24:15"_mac);  // the same in every release: pods keep it over an upgrade
  CHECK(portWith([&](auto& s) { s.mac = mac; }).mac == mac);

  SECTION("belong to the pod's name, not to its container") {
    owner.containerId = "c1";
    owner.podUid = "other";
    CHECK(defaultMac(owner, free) == mac);
  }
  SECTION("differ by interface, network, pod, and container where there is no pod") {
    std::set<MacAddress> all{mac};
    owner.interface = "net2";
    CHECK(all.insert(defaultMac(owner, free)).second);
    owner.network = "slow";
    CHECK(all.insert(defaultMac(owner, free)).second);
    owner.podName = "pod-2";
    CHECK(all.insert(defaultMac(owner, free)).second);
    owner.podName = "";
    CHECK(all.insert(defaultMac(owner, free)).second);
    owner.containerId = "c2";
    CHECK(all.insert(defaultMac(owner, free)).second);
  }
  SECTION("avoid those that others have") {
    const MacAddress next = defaultMac(owner, [&](const MacAddress& m) { return m == mac; });
    CHECK(next != mac);
    CHECK(portWith([&](auto& s) { s.mac = next; }).mac == next);
  }
}
