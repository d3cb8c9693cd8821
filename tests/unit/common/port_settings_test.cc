// A port's settings: walked, laid over each other, and on the switch's control channel.
#include "common/port_settings.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <set>
#include <stdexcept>
#include <string>

#include "common/control_port.h"
#include "common/vlan_ranges.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;

TEST_CASE("every setting is walked once, by names of its own") {
  std::set<std::string> keys, records;
  size_t count = 0, values = 0;
  const PortSettings port = defaultSettings();
  forEachSetting(
      [&](const Setting& setting, const auto& value) {
        ++count;
        values += value.has_value() ? 1 : 0;
        keys.emplace(setting.key);
        records.emplace(setting.record);
      },
      port);
  CHECK(keys.size() == count);
  CHECK(keys.contains("vlanTrunk"));
  CHECK(records.size() == count);
  CHECK(values == count - 1);  // all but the MAC
}

TEST_CASE("only what is there is laid over") {
  PortSettings port = defaultSettings();
  PortSettings over;
  overlay(port, over);
  CHECK(port == defaultSettings());
  over.vlan = 0;
  over.trust = true;
  port.vlan = 5;
  overlay(port, over);
  CHECK(port.vlan == 0u);
  CHECK(port.trust == true);
  CHECK(port.mtu == 1500u);
}

TEST_CASE("words are those of the tables, in either case, and a text from outside is cut") {
  LinkState link{};
  readText("link_state", "Disable", link);
  CHECK(link == LinkState::disable);
  CHECK(textOf(link) == "disable");
  CHECK(textOf(LinkState::automatic) == "auto");
  VlanProtocol protocol{};
  readText("vlanProto", "802.1AD", protocol);
  CHECK(protocol == VlanProtocol::dot1ad);
  CHECK(textOf(VlanProtocol::dot1q) == "802.1q");
  CHECK_THROWS_WITH(readText("link_state", "up", link),
                    "link_state 'up': expected auto or enable or disable");
  try {
    readText("vlanProto", std::string(100000, 'x'), protocol);
    FAIL("accepted");
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).size() < 200);
  }
}

TEST_CASE("VLANs of a trunk are read in any order") {
  VlanRanges vlans;
  readText("vlanTrunk", "200,100-110", vlans);
  CHECK(textOf(vlans) == "100-110,200");
  CHECK_THROWS_WITH(readText("vlanTrunk", "1-4095", vlans),
                    "vlanTrunk '1-4095': expected VLANs of 1 to 4094 such as 100-110,200, in at "
                    "most 1000 bytes");
  CHECK(textOf(vlans) == "100-110,200");
}

TEST_CASE("values that exclude each other are named") {
  PortSettings port;
  CHECK_NOTHROW(checkTogether(port));
  CHECK_NOTHROW(checkTogether(defaultSettings()));
  port.vlanTrunk = VlanRanges::parse("100-110");
  CHECK_NOTHROW(checkTogether(port));
  port.vlan = 99;
  CHECK_NOTHROW(checkTogether(port));
  port.vlan = 110;
  CHECK_THROWS_WITH(checkTogether(port),
                    "vlan 110 is also in vlanTrunk 100-110: frames of a trunk's native VLAN have "
                    "no tag; take it out of one of them");
  port = {};
  port.burst = 0;
  CHECK_NOTHROW(checkTogether(port));
  port.burst = 64;
  port.maxTxRate = 0;
  CHECK_THROWS_WITH(checkTogether(port),
                    "burst 64 needs a max_tx_rate or max_rx_rate that is not 0");
  port.maxRxRate = 1;
  CHECK_NOTHROW(checkTogether(port));
  port.maxRxRate.reset();
  port.maxTxRate = 1;
  CHECK_NOTHROW(checkTogether(port));
}

TEST_CASE("a port's settings pass the control channel") {
  PortSettings port = defaultSettings();
  port.mac = "02:00:00:00:00:01"_mac;
  port.vlan = 7;
  port.mtu = 1400;
  port.linkState = LinkState::disable;
  port.spoofCheck = true;
  port.maxTxRate = 10;
  port.vlanTrunk = VlanRanges::parse("100-110,200");
  port.maxRxRate = 20;
  port.burst = 64;
  const auto message = controlFromPort("nic-0", port);
  CHECK(message.id() == "nic-0");
  CHECK(portFromControl(message, 9000) == port);

  control::Port least;
  least.set_mac("02:00:00:00:00:01");
  PortSettings expected = defaultSettings();
  expected.mac = port.mac;
  expected.mtu = 9000;
  expected.linkState = LinkState::enable;
  CHECK(portFromControl(least, 9000) == expected);

  least.set_mtu(9001);
  CHECK_THROWS_WITH(portFromControl(least, 9000), "mtu 9001: expected 68 to 9000");
  least.clear_mtu();
  least.set_vlan(-1);
  CHECK_THROWS_WITH(portFromControl(least, 9000), "vlan -1: expected 0 to 4094");
  least.set_vlan(0);
  least.set_max_rx_rate(1000001);
  CHECK_THROWS_WITH(portFromControl(least, 9000), "max_rx_rate 1000001: expected 0 to 1000000");
  least.set_max_rx_rate(1);
  least.set_burst(1048577);
  CHECK_THROWS_WITH(portFromControl(least, 9000), "burst 1048577: expected 0 to 1048576");
  least.set_burst(-1);
  CHECK_THROWS_WITH(portFromControl(least, 9000), "burst -1: expected 0 to 1048576");
  least.set_burst(0);
  least.set_vlan_trunk("5000");
  CHECK_THROWS_WITH(portFromControl(least, 9000), Catch::StartsWith("vlan_trunk '5000': expected"));
  least.set_vlan_trunk("7-9");
  least.set_vlan(8);
  CHECK_THROWS_WITH(portFromControl(least, 9000), Catch::StartsWith("vlan 8 is also in"));
}

TEST_CASE("a port's policy passes the control channel, and a port without one has none") {
  control::Port message;
  CHECK(policyFromControl(message) == PortPolicy{true, 0});
  for (const PortPolicy& policy : {PortPolicy{}, PortPolicy{false, 0}, PortPolicy{true, 7}}) {
    setPolicy(message, policy);
    CHECK(policyFromControl(message) == policy);
  }
  message.set_storm_limit(1000001);
  CHECK_THROWS_WITH(policyFromControl(message), "storm_limit 1000001: expected 0 to 1000000");
}
