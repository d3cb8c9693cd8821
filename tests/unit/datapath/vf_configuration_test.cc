// The changes of an attachment to a VF and a vDPA device, and their undoing: with drivers that
// apply all of them, only some, or only pretend to.
#include "deviceplugin/datapath/hardware/vf_configuration.h"

#include <catch2/catch.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/backend.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/datapath/fake_pf.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

const MacAddress kOwn = "52:54:00:00:00:01"_mac;
const MacAddress kWanted = "02:00:00:00:00:01"_mac;

// One VF and one vDPA device.
struct Hardware : FakePf {
  bool exists = true;
  bool isVf = true;
  unsigned walks = 0;  // over sysfs
  bool vdpaSettable = false;
  bool vdpaShown = true;  // the device has VIRTIO_NET_F_MAC
  bool vdpaIgnores = false;
  std::optional<MacAddress> vdpaMac = kOwn;
  unsigned vdpaMtu = 1500;

  VfConfiguration changes() {
    return VfConfiguration(
        {[this](const std::string&) { return exists; },
         [this](const std::string&) -> std::optional<Vf> {
           ++walks;
           if (!isVf) return std::nullopt;
           return vf();
         },
         [this](const std::string&) { return vdpaShown ? vdpaMac : std::nullopt; },
         [this](const std::string&, const MacAddress& mac) {
           if (vdpaSettable && !vdpaIgnores) vdpaMac = mac;
           return vdpaSettable;
         },
         [this](const std::string&) { return vdpaMtu; }});
  }
};

VfValues asFound() {
  VfValues values = unreportedVf();
  values.spoofCheck = true;
  values.trust = false;
  return values;
}

// The record as Attachments has it before the plan.
OwnerRecord recordFor(const PortSettings& settings, const MacAddress& chosenMac = kWanted) {
  OwnerRecord record;
  record.attachment.deviceId = "0000:65:00.2";
  record.device.backend = BackendKind::kernel;
  record.device.pciAddress = "0000:65:00.2";
  record.device.vdpa = "vdpa0";
  PortSettings& port = record.attachment.port;
  overlay(port, settings);
  record.macAsked = settings.mac.has_value();
  port.mac = record.macAsked ? settings.mac : chosenMac;
  return record;
}

PortSettings everything() {
  PortSettings settings;
  settings.vlan = 100;
  settings.vlanQos = 3;
  settings.spoofCheck = false;
  settings.trust = true;
  settings.maxTxRate = 500;
  settings.linkState = LinkState::enable;
  settings.mac = kWanted;
  return settings;
}

std::vector<std::string> differences(const VfConfiguration& changes, const OwnerRecord& record) {
  Differences found;
  changes.check(record, found);
  return found.take();
}

}  // namespace

TEST_CASE("hardware changes: all of it there and back, the last one first") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  CHECK(hardware.written.empty());
  CHECK(record.found.vf == asFound());
  changes.apply(record);
  CHECK(hardware.values.vlan == 100);
  CHECK(hardware.values.vlanQos == 3);
  CHECK(hardware.values.spoofCheck == false);
  CHECK(hardware.values.trust == true);
  CHECK(hardware.values.maxTxRate == 500);
  CHECK(hardware.values.linkState == LinkState::enable);
  CHECK(hardware.values.mac == kWanted);
  CHECK(differences(changes, record).empty());

  const auto order = std::exchange(hardware.written, {});
  changes.restore(record);
  CHECK(hardware.values == asFound());
  CHECK(hardware.written == std::vector<VfPart>(order.rbegin(), order.rend()));
  hardware.written.clear();
  changes.restore(record);  // can be repeated
  CHECK(hardware.written.empty());
}

TEST_CASE("hardware changes: six settings cost three requests, and two to put them back") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  CHECK(hardware.gets == 1);
  changes.apply(record);
  CHECK(hardware.written.size() == 6);
  CHECK(hardware.sets == 1);
  CHECK(hardware.gets == 2);  // read back once
  CHECK(hardware.walks == 2);
  hardware.gets = hardware.sets = hardware.walks = 0;
  changes.restore(record);
  CHECK(hardware.sets == 1);
  CHECK(hardware.gets == 2);  // before and after
  CHECK(hardware.walks == 1);
}

TEST_CASE("hardware changes: of six settings, those that a driver refuses or ignores are named") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  SECTION("one in the middle is refused, with the driver's words") {
    hardware.refused = {VfPart::rate};
    CHECK_THROWS_WITH(changes.apply(record),
                      Catch::Contains("VF 2 of eth1 (driver) refuses min_tx_rate 0, max_tx_rate "
                                      "500: no such setting: Operation not supported"));
  }
  SECTION("the last is ignored") {
    hardware.ignored = {VfPart::linkState};
    CHECK_THROWS_WITH(changes.apply(record),
                      Catch::Contains("link_state enable was set, but VF 2 of eth1 (driver) has "
                                      "link_state auto; its driver ignores it"));
  }
  hardware.refused = hardware.ignored = {};
  changes.restore(record);
  CHECK(hardware.values == asFound());
}

TEST_CASE("hardware changes: one that can't be put back does not keep the others") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  changes.apply(record);
  hardware.refused = {VfPart::trust};
  CHECK_THROWS_WITH(changes.restore(record),
                    Catch::Contains("cannot restore trust off of 0000:65:00.2, VF 2 of eth1 "
                                    "(driver): it has trust on: no such setting"));
  VfValues left = asFound();
  left.trust = true;
  CHECK(hardware.values == left);
}

TEST_CASE("hardware changes: what is so already is not touched, then or later") {
  Hardware hardware;
  hardware.values = asFound();
  hardware.values.vlan = 7;
  const auto changes = hardware.changes();
  PortSettings settings;
  settings.vlan = 7;
  settings.spoofCheck = true;
  settings.mac = kOwn;
  auto record = recordFor(settings);
  changes.plan(record, settings);
  changes.apply(record);
  CHECK(hardware.written.empty());
  hardware.values.vlan = 9;  // changed by an operator
  changes.restore(record);
  CHECK(hardware.values.vlan == 9);
}

TEST_CASE("hardware changes: nothing is left by a crash between any two of them") {
  // Whatever part of the plan took effect, undoing it restores the original state.
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  VfValues wanted = asFound();
  wanted.vlan = 100;
  wanted.mac = kWanted;
  for (const VfPart part : record.found.vfChanges) {
    CHECK(hardware.vf().set(wanted, {&part, 1}).empty());
    changes.restore(record);
    CHECK(hardware.values == asFound());
  }
}

TEST_CASE("hardware changes: who can't do it is named") {
  Hardware hardware;
  hardware.values = asFound();
  PortSettings settings;
  settings.vlan = 5;
  const auto plan = [&] {
    auto record = recordFor(settings);
    hardware.changes().plan(record, settings);
  };
  SECTION("no VF") {
    hardware.isVf = false;
    CHECK_THROWS_WITH(plan(), Catch::Contains("0000:65:00.2: vlan 5") &&
                                  Catch::Contains("not a VF of a PF that has a netdev"));
  }
  SECTION("a PF without settings") {
    hardware.settable = false;
    CHECK_THROWS_WITH(plan(), Catch::Contains("the driver driver of its PF eth1"));
  }
  SECTION("a driver that refuses") {
    hardware.refused = {VfPart::vlan};
    auto record = recordFor(settings);
    const auto changes = hardware.changes();
    changes.plan(record, settings);
    CHECK_THROWS_WITH(changes.apply(record),
                      Catch::Contains("VF 2 of eth1 (driver) refuses vlan 5"));
    changes.restore(record);
    CHECK(hardware.values == asFound());
  }
  SECTION("a driver that ignores it") {
    hardware.ignored = {VfPart::vlan};
    auto record = recordFor(settings);
    const auto changes = hardware.changes();
    changes.plan(record, settings);
    CHECK_THROWS_WITH(changes.apply(record), Catch::Contains("its driver ignores it"));
  }
}

TEST_CASE("hardware changes: a function that has gone has nothing to be put back") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  changes.apply(record);
  hardware.exists = hardware.isVf = false;
  CHECK_NOTHROW(changes.restore(record));
  CHECK_FALSE(differences(changes, record).empty());
}

TEST_CASE("hardware changes: what a PF that can't be seen has is put back once it can") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  changes.apply(record);
  SECTION("in another network namespace, or renamed") {
    hardware.isVf = false;
    CHECK_THROWS_WITH(changes.restore(record),
                      Catch::Contains("cannot restore link_state auto of 0000:65:00.2: it is not "
                                      "a VF of a PF that has a netdev on this node"));
    hardware.isVf = true;
  }
  SECTION("its driver is being loaded") {
    hardware.settable = false;
    CHECK_THROWS_WITH(changes.restore(record),
                      Catch::Contains("the driver driver of its PF eth1 has no VF settings"));
    hardware.settable = true;
  }
  SECTION("from the first write on") {
    hardware.onSet = [&] { hardware.present = hardware.isVf = false; };
    CHECK_THROWS_WITH(changes.restore(record), Catch::Contains("cannot restore link_state auto"));
    hardware.onSet = nullptr;
    hardware.present = hardware.isVf = true;
  }
  changes.restore(record);
  CHECK(hardware.values == asFound());
}

TEST_CASE("hardware changes: somebody else's doing is told") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor(everything());
  changes.plan(record, everything());
  changes.apply(record);
  hardware.values.vlan = 8;
  const auto found = differences(changes, record);
  REQUIRE(found.size() == 1);
  CHECK_THAT(found[0], Catch::Contains("VF 2 of eth1 (driver) has vlan 8"));
}

TEST_CASE("hardware changes: a MAC by the vdpa family first, then through the PF, else its own") {
  Hardware hardware;
  hardware.values = asFound();
  const auto changes = hardware.changes();
  auto record = recordFor({});  // the network requests none
  SECTION("vdpa") {
    hardware.vdpaSettable = true;
    changes.plan(record, {});
    changes.apply(record);
    CHECK(hardware.vdpaMac == kWanted);
    CHECK(hardware.written.empty());
    CHECK(differences(changes, record).empty());
    changes.restore(record);
    CHECK(hardware.vdpaMac == kOwn);
  }
  SECTION("the PF") {
    changes.plan(record, {});
    changes.apply(record);
    CHECK(hardware.values.mac == kWanted);
    CHECK_FALSE(record.found.vdpaMac);
    changes.restore(record);
    CHECK_FALSE(hardware.values.mac);
  }
  SECTION("its own") {
    hardware.refused = {VfPart::mac};
    changes.plan(record, {});
    changes.apply(record);
    CHECK(record.attachment.port.mac == kOwn);
    CHECK(record.found.vfChanges.empty());
  }
  SECTION("its own, of a device without a PF") {
    hardware.isVf = false;
    changes.plan(record, {});
    changes.apply(record);
    CHECK(record.attachment.port.mac == kOwn);
  }
}

TEST_CASE("hardware changes: a vDPA device that told no MAC tells none again") {
  Hardware hardware;
  hardware.vdpaMac.reset();
  hardware.vdpaSettable = true;
  const auto changes = hardware.changes();
  auto record = recordFor({});
  changes.plan(record, {});
  changes.apply(record);
  CHECK(hardware.vdpaMac == kWanted);
  changes.restore(record);
  CHECK(hardware.vdpaMac == MacAddress());
}

TEST_CASE(
    "hardware changes: a device that shows no MAC, whatever is set, as mlx5's without F_MAC") {
  Hardware hardware;
  hardware.isVf = false;
  hardware.vdpaMac = MacAddress();
  hardware.vdpaShown = false;
  hardware.vdpaSettable = true;
  const auto changes = hardware.changes();
  SECTION("nobody asks for one: it has none") {
    auto record = recordFor({});
    record.device.rules = {"mlx5_core", true, true, false};
    changes.plan(record, {});
    changes.apply(record);
    CHECK_FALSE(record.attachment.port.mac);
    CHECK(differences(changes, record).empty());
    CHECK(hardware.vdpaMac == MacAddress());
  }
  SECTION("one that is asked for is refused, with what would help") {
    hardware.vdpaSettable = GENERATE(true, false);
    PortSettings settings;
    settings.mac = kWanted;
    auto record = recordFor(settings);
    record.device.rules = {"mlx5_core", true, true, false};
    CHECK_THROWS_WITH(changes.plan(record, settings),
                      Catch::Contains("mac 02:00:00:00:00:01 was requested, but vDPA device vdpa0 "
                                      "shows no MAC: its driver mlx5_core takes it when the device "
                                      "is made: use `provision: vdpa`"));
    CHECK(hardware.vdpaMac == MacAddress());
  }
  SECTION("that a driver sets, and doesn't show, is refused before it is set") {
    PortSettings settings;
    settings.mac = kWanted;
    auto record = recordFor(settings);
    record.device.rules = {"vdpasim_net", true, true, true};
    CHECK_THROWS_WITH(changes.plan(record, settings), Catch::Contains("shows no MAC"));
    CHECK(hardware.vdpaMac == MacAddress());
  }
}

TEST_CASE("hardware changes: a MAC that a driver takes only when the device is made is never set") {
  Hardware hardware;
  hardware.values = asFound();
  hardware.vdpaSettable = true;
  const auto changes = hardware.changes();
  PortSettings settings;
  SECTION("nobody asks for one: it keeps its own") {
    auto record = recordFor(settings);
    record.device.rules = {"mlx5_core", true, true, false};
    changes.plan(record, settings);
    changes.apply(record);
    CHECK(record.attachment.port.mac == kOwn);
  }
  SECTION("one that is asked for is refused") {
    settings.mac = kWanted;
    auto record = recordFor(settings);
    record.device.rules = {"mlx5_core", true, true, false};
    CHECK_THROWS_WITH(changes.plan(record, settings),
                      Catch::Contains("vDPA device vdpa0 has 52:54:00:00:00:01: its driver "
                                      "mlx5_core takes it when the device is made: use `provision: "
                                      "vdpa`"));
  }
  SECTION("unless the device is remade with it") {
    settings.mac = kWanted;
    auto record = recordFor(settings);
    record.device.rules = {"mlx5_core", true, true, false};
    changes.plan(record, settings, kWanted);
    CHECK_FALSE(record.found.vdpaMac);
    CHECK(record.attachment.port.mac == kWanted);
  }
  CHECK(hardware.vdpaMac == kOwn);
  CHECK(hardware.written.empty());
}

TEST_CASE("hardware changes: a driver that ignores a MAC is believed where nobody asked for it") {
  Hardware hardware;
  hardware.isVf = false;
  hardware.vdpaSettable = hardware.vdpaIgnores = true;
  const auto changes = hardware.changes();
  auto record = recordFor({});
  changes.plan(record, {});
  changes.apply(record);
  CHECK(record.attachment.port.mac == kOwn);
  PortSettings settings;
  settings.mac = kWanted;
  record = recordFor(settings);
  changes.plan(record, settings);
  CHECK_THROWS_WITH(changes.apply(record), Catch::Contains("its driver ignores it"));
}

TEST_CASE("hardware changes: an MTU beyond that of a character device that was handed out") {
  Hardware hardware;
  hardware.isVf = false;
  const auto changes = hardware.changes();
  PortSettings settings;
  settings.mtu = 1501;
  auto record = recordFor(settings);
  record.device.attach = Attach::vhostVdpa;
  CHECK_THROWS_WITH(changes.plan(record, settings), Catch::Contains("mtu 1501 was requested"));
  settings.mtu = 1500;
  CHECK_NOTHROW(changes.plan(record, settings));
}

TEST_CASE("hardware changes: a software port's MAC is not hardware's") {
  Hardware hardware;
  hardware.vdpaSettable = true;
  auto record = recordFor({});
  record.device = DeviceConfig();
  const auto changes = hardware.changes();
  changes.apply(record);
  CHECK(hardware.vdpaMac == kOwn);
  CHECK(record.attachment.port.mac == kWanted);
}

TEST_CASE("hardware changes: a MAC that is asked for and can't be had") {
  Hardware hardware;
  hardware.isVf = false;
  PortSettings settings;
  settings.mac = kWanted;
  auto record = recordFor(settings);
  const auto changes = hardware.changes();
  changes.plan(record, settings);
  CHECK_THROWS_WITH(changes.apply(record),
                    Catch::Contains("mac 02:00:00:00:00:01 was requested, but the device has "
                                    "52:54:00:00:00:01") &&
                        Catch::Contains("the parent of vDPA device vdpa0 can't set it"));
}

TEST_CASE(
    "hardware changes: a driver that can't take back the MAC it gave keeps no pod from ending") {
  Hardware hardware;
  hardware.values = asFound();
  auto record = recordFor({});
  const auto changes = hardware.changes();
  changes.plan(record, {});
  changes.apply(record);
  hardware.refused = {VfPart::mac};
  CHECK_NOTHROW(changes.restore(record));
}
