// The table of ports, and what settings become in it.
#include "deviceplugin/datapath/switch/forwarding/port.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/ports/port_view.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;

}  // namespace

TEST_CASE("a port is found by its number while it is in the table") {
  PortTable table;
  Port port;
  port.number = MacTable::kMaxPorts - 1;
  CHECK(table.find(port.number) == nullptr);
  table.add(port);
  CHECK(table.find(port.number) == &port);
  CHECK(table.find(1) == nullptr);
  CHECK(table.find(MacTable::kNoPort) == nullptr);
  table.remove(port);
  CHECK(table.find(port.number) == nullptr);
}

TEST_CASE("a VLAN's list of members is replaced as a whole") {
  PortTable table;
  Port one, other;
  CHECK(table.members(7) == nullptr);
  CHECK_FALSE(table.setMembers(7, std::make_unique<const std::vector<Port*>>(1, &one)));
  const auto* first = table.members(7);
  REQUIRE(first);
  CHECK(*first == std::vector<Port*>{&one});
  CHECK(table.members(0) == nullptr);
  const auto old = table.setMembers(7, std::make_unique<const std::vector<Port*>>(1, &other));
  CHECK(old.get() == first);
  CHECK(table.members(7)->front() == &other);
  table.setMembers(7, nullptr);
  CHECK(table.members(7) == nullptr);
}

TEST_CASE("the table's version tells what verdicts depend on") {
  PortTable table;
  Port port;
  uint64_t before = table.version();
  const auto changed = [&] { return std::exchange(before, table.version()) != before; };
  table.add(port);
  CHECK(changed());
  table.setMembers(7, std::make_unique<const std::vector<Port*>>(1, &port));
  CHECK(changed());
  table.changed();
  CHECK(changed());
  table.remove(port);
  CHECK(changed());
  CHECK_FALSE(changed());
}

TEST_CASE("a port's settings as the pollers see them") {
  PortSettings settings = defaultSettings();
  settings.mac = MacAddress({2, 0, 0, 0, 0, 7});
  settings.vlan = 100;
  settings.mtu = 1400;
  settings.spoofCheck = true;
  PortLimits limits(1'000'000'000);
  PortView view = viewOf(settings, {true, 0}, limits);
  CHECK(view.mac == 0x020000000007);
  CHECK(view.vlan == 100);
  CHECK(view.maxFrame == 1414);
  CHECK(view.linkUp);
  CHECK(view.spoofCheck);
  CHECK_FALSE(view.trust);
  CHECK(view.sendLimit == nullptr);
  CHECK(view.receiveCount == 0);

  settings.linkState = LinkState::disable;
  settings.maxTxRate = 10;
  view = viewOf(settings, {true, 0}, limits);
  CHECK_FALSE(view.linkUp);
  CHECK(view.sendLimit == &limits.send);
  CHECK(view.receiveLimit == nullptr);
  CHECK(view.stormLimit == nullptr);
  CHECK(view.trunk == nullptr);

  settings.maxRxRate = 10;
  settings.vlanTrunk = VlanRanges::parse("200-201");
  view = viewOf(settings, {true, 7}, limits);
  CHECK(view.receiveLimit == &limits.receive);
  CHECK(view.stormLimit == &limits.storm);
  REQUIRE(view.trunk != nullptr);
  CHECK(*view.trunk == VlanSet{}.set(200).set(201));
}

TEST_CASE("the VLANs of an access port and of a trunk") {
  PortView view;
  CHECK(vlansOf(view) == VlanSet{}.set(0));
  view.vlan = 7;
  CHECK(vlansOf(view) == VlanSet{}.set(7));
  view.trunk = std::make_shared<const VlanSet>(VlanSet{}.set(100).set(200));
  CHECK(vlansOf(view) == VlanSet{}.set(7).set(100).set(200));
  view.vlan = 0;
  CHECK(vlansOf(view) == VlanSet{}.set(100).set(200));
}
