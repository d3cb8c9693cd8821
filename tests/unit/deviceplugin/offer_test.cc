// From a configuration and a snapshot to offers and verdicts.
#include "deviceplugin/resources/offer.h"

#include <catch2/catch.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/backend.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/held_devices.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

// A node with four virtio VFs of one PF, as a generated snapshot.
class Node {
 public:
  Node() {
    PciFunction pf;
    pf.address = "0000:41:00.0";
    pf.vendor = "1af4";
    pf.device = "1041";
    pf.classCode = 0x020000;
    pf.driver = "virtio-pci";
    pf.netdevs = {"eth1"};
    pf.vfCount = 4;
    pf.numaNode = 1;
    snapshot.functions[pf.address] = pf;
    snapshot.pfNetdevs[pf.address] = "eth1";
    snapshot.netdevs["eth1"] = {"eth1", pf.address, true, ""};
    for (unsigned i = 0; i < 4; ++i) {
      PciFunction vf = pf;
      vf.address = address(i);
      vf.netdevs = {};
      vf.vfCount = 0;
      vf.pf = pf.address;
      vf.vfIndex = i;
      snapshot.functions[vf.address] = vf;
    }
  }
  static std::string address(unsigned vf) { return "0000:41:00." + std::to_string(vf + 1); }

  // The VF under vp-vdpa, with a vDPA device.
  void addVdpa(unsigned vf, const std::string& name, const std::string& driver = "vhost_vdpa") {
    snapshot.functions.at(address(vf)).driver = "vp-vdpa";
    ManagementDevice management;
    management.name = "pci/" + address(vf);
    management.pciAddress = address(vf);
    management.makesNetwork = true;
    management.maxVirtqueues = 3;
    snapshot.managementDevices[management.name] = management;
    VdpaDevice device;
    device.name = name;
    device.managementDevice = management.name;
    device.pciAddress = address(vf);
    device.busDriver = driver;
    if (driver == "vhost_vdpa") device.characterDevice = "vhost-vdpa-" + std::to_string(vf);
    snapshot.vdpaDevices[name] = device;
  }

  Offers offers(const std::string& resource) const {
    return makeOffers(parseConfig("resources:\n" + resource, "f"), snapshot);
  }

  Snapshot snapshot;
};

const Verdict& verdictOf(const Offers& offers, const std::string& id) {
  for (const auto& verdict : offers.verdicts)
    if (verdict.id == id) return verdict;
  throw std::runtime_error("no verdict for " + id);
}

std::vector<std::string> idsOf(const ResourceOffer& offer) {
  std::vector<std::string> ids;
  for (const auto& device : offer.devices) ids.push_back(device.id);
  return ids;
}

const std::string kNic = "  - {name: nic, devices: [{vendors: ['1af4']}]";

}  // namespace

TEST_CASE("offers of ports are in order, and need nothing on the node") {
  const auto offers = makeOffers(
      parseConfig("resources:\n  - name: nic\n    software: {ports: 2}\n", "f"), Snapshot());
  REQUIRE(offers.resources.size() == 1);
  CHECK(idsOf(offers.resources[0]) == std::vector<std::string>{"nic-0", "nic-1"});
  CHECK_THAT(describe(offers), Catch::Contains("vdpa.io/nic: 2 devices, nic-0 to nic-1"));
}

TEST_CASE("a vDPA device makes its VF a kernel device") {
  Node node;
  node.addVdpa(2, "vdpa2");
  const auto offers = node.offers(kNic + "}\n");
  REQUIRE(idsOf(offers.resources[0]) == std::vector<std::string>{Node::address(2)});
  const Device& device = offers.resources[0].devices[0];
  CHECK(device.backend == BackendKind::kernel);
  CHECK(device.vdpa == "vdpa2");
  CHECK(device.characterDevice == "vhost-vdpa-2");
  CHECK(device.numaNode == 1);
  CHECK(device.pf == "0000:41:00.0");
  CHECK(device.unhealthy == "");
  CHECK_FALSE(device.provision);
  const auto& verdict = verdictOf(offers, Node::address(2));
  CHECK(verdict.resource == "vdpa.io/nic");
  CHECK(verdict.reason == "vDPA device vdpa2 under vhost_vdpa");
  CHECK_THAT(describe(offers), Catch::Contains("NUMA node 1: " + verdict.reason));
}

TEST_CASE("what kept a VF out, and what would help") {
  Node node;
  node.addVdpa(1, "vdpa1", "virtio_vdpa");
  node.snapshot.vdpaDevices.at("vdpa1");
  node.snapshot.functions.at(Node::address(3)).vendor = "8086";
  const auto offers = node.offers(kNic + "}\n");
  CHECK(offers.resources[0].devices.empty());
  CHECK(verdictOf(offers, Node::address(0)).refusals.at("vdpa.io/nic") ==
        "driver is virtio-pci, needs vp-vdpa; `provision: vdpa` would bind it");
  CHECK_THAT(verdictOf(offers, Node::address(1)).refusals.at("vdpa.io/nic"),
             Catch::StartsWith("its vDPA device vdpa1 is bound to virtio_vdpa, needs vhost_vdpa"));
  CHECK(verdictOf(offers, Node::address(3)).refusals.at("vdpa.io/nic") ==
        "vendor is 8086, needs 1af4");
  CHECK(verdictOf(offers, "0000:41:00.0").reason == "is a PF with 4 VFs");
  CHECK_THAT(describe(offers), Catch::Contains("0000:41:00.4 (VF 3 of eth1, 8086:1041, driver "
                                               "virtio-pci)\n    vdpa.io/nic: vendor is 8086"));
}

TEST_CASE("provisioning offers what it will make, and keeps it when it is made") {
  Node node;
  const std::string config = kNic + ", provision: vdpa}\n";
  auto offers = node.offers(config);
  REQUIRE(offers.resources[0].devices.size() == 4);
  const Device before = offers.resources[0].devices[0];
  CHECK(before.provision);
  CHECK(before.vdpa == "vdpa-0000:41:00.1");
  CHECK(before.managementDevice == "pci/0000:41:00.1");
  CHECK(before.pciDriver == "vp-vdpa");
  CHECK_THAT(before.unhealthy, Catch::Contains("being made"));

  node.addVdpa(0, before.vdpa);
  offers = node.offers(config);
  Device after = offers.resources[0].devices[0];
  CHECK(after.unhealthy == "");
  CHECK(after.provision);
  CHECK(after.vdpa == before.vdpa);
  CHECK(after.pciDriver == before.pciDriver);

  node.addVdpa(1, "byhand");  // made by another program, so not ours to provision
  offers = node.offers(config);
  CHECK_FALSE(offers.resources[0].devices[1].provision);
}

TEST_CASE("the first resource that matches owns a device") {
  Node node;
  for (unsigned vf = 0; vf < 4; ++vf) node.addVdpa(vf, "vdpa" + std::to_string(vf));
  const auto offers = node.offers(
      "  - {name: a, devices: [{pfNames: ['eth1#1-2']}]}\n"
      "  - {name: b, devices: [{vendors: ['1af4']}]}\n");
  CHECK(idsOf(offers.resources[0]) == std::vector<std::string>{Node::address(1), Node::address(2)});
  CHECK(idsOf(offers.resources[1]) == std::vector<std::string>{Node::address(0), Node::address(3)});
  CHECK(verdictOf(offers, Node::address(0)).refusals.at("vdpa.io/a") ==
        "is VF 0 of PF eth1, needs eth1#1-2");
}

TEST_CASE("software ports stand in only where no device matches") {
  Node node;
  const std::string config = kNic + ", software: {ports: 2}}\n";
  CHECK(idsOf(node.offers(config).resources[0]) == std::vector<std::string>{"nic-0", "nic-1"});
  node.addVdpa(0, "vdpa0");
  CHECK(idsOf(node.offers(config).resources[0]) == std::vector<std::string>{Node::address(0)});
}

TEST_CASE("a PF and a ConnectX-4 that a selector means are not offered, but software ports are") {
  Node node;
  node.snapshot = Snapshot();
  const auto add = [&](const std::string& address, const char* device, const std::string& pf) {
    PciFunction function;
    function.address = address;
    function.vendor = function.subsystemVendor = "15b3";
    function.device = device;
    function.classCode = 0x020000;
    function.driver = "mlx5_core";
    function.pf = pf;
    node.snapshot.functions[address] = function;
  };
  add("0000:65:00.0", "101d", "");              // a PF of a ConnectX-6 Dx
  add("0000:66:00.0", "1013", "");              // a ConnectX-4
  add("0000:66:00.2", "1014", "0000:66:00.0");  // and its VF
  node.snapshot.functions.at("0000:66:00.0").vfCount = 1;
  const std::string config =
      "  - {name: nic, devices: [{vendors: ['15b3']}], provision: vdpa, software: {ports: 2}}\n";
  auto offers = node.offers(config);
  CHECK(idsOf(offers.resources[0]) == std::vector<std::string>{"nic-0", "nic-1"});
  CHECK_THAT(verdictOf(offers, "0000:65:00.0").refusals.at("vdpa.io/nic"),
             Catch::Contains("15b3:101d is not a function that mlx5_vdpa supports"));
  CHECK_THAT(verdictOf(offers, "0000:66:00.2").refusals.at("vdpa.io/nic"),
             Catch::Contains("15b3:1014 is not a function that mlx5_vdpa supports"));

  add("0000:65:00.2", "101e", "0000:65:00.0");
  offers = node.offers(config);
  CHECK(idsOf(offers.resources[0]) == std::vector<std::string>{"0000:65:00.2"});
}

TEST_CASE("with provisioning, the queue pairs that count are those that can be made") {
  Node node;
  node.addVdpa(0, "vdpa-" + Node::address(0));
  node.snapshot.managementDevices.at("pci/" + Node::address(0)).maxVirtqueues = 9;
  const std::string selector = "  - {name: nic, devices: [{minQueuePairs: 4}]";
  const auto offered = [&](const std::string& more) {
    const auto ids = idsOf(node.offers(selector + more + "}\n").resources[0]);
    return !ids.empty() && ids[0] == Node::address(0);
  };
  CHECK(offered(", provision: vdpa"));  // it has one pair, and is remade with four
  CHECK_FALSE(offered(""));
  node.snapshot.managementDevices.at("pci/" + Node::address(0)).maxVirtqueues = 7;
  CHECK_FALSE(offered(", provision: vdpa"));
}

TEST_CASE("a management device on the auxiliary bus is that of the function it is part of") {
  Node node;
  auto& vf = node.snapshot.functions.at(Node::address(0));
  vf.vendor = "1dd8";
  vf.device = "100b";
  vf.driver = "pds_core";
  node.snapshot.parts[vf.address] = "pds_core.vDPA.3";
  const std::string name = "auxiliary/pds_core.vDPA.3";
  node.snapshot.managementDevices[name] = {name, vf.address, true, 9, 0};
  const std::string config = "  - {name: nic, devices: [{vendors: ['1dd8']}], provision: vdpa}\n";
  const bool made = GENERATE(false, true);
  if (made) {
    VdpaDevice vdpa;
    vdpa.name = "vdpa-pds_core.vDPA.3";
    vdpa.managementDevice = name;
    vdpa.pciAddress = vf.address;
    vdpa.busDriver = "vhost_vdpa";
    vdpa.characterDevice = "vhost-vdpa-4";
    node.snapshot.vdpaDevices[vdpa.name] = vdpa;
  }
  const auto offers = node.offers(config);
  REQUIRE(idsOf(offers.resources[0]) == std::vector<std::string>{vf.address});
  const Device& device = offers.resources[0].devices[0];
  CHECK(device.managementDevice == name);
  CHECK(device.vdpa == "vdpa-pds_core.vDPA.3");
  CHECK(device.provision);
  CHECK(device.rules.driver == "pds_core");
}

TEST_CASE("a device that the host uses is never offered") {
  Node node;
  node.addVdpa(0, "vdpa0");
  node.snapshot.functions.at(Node::address(0)).netdevs = {"eth5"};
  node.snapshot.netdevs["eth5"] = {"eth5", Node::address(0), true, "the default route"};
  const auto offers = node.offers(kNic + "}\n");
  CHECK(offers.resources[0].devices.empty());
  CHECK(verdictOf(offers, Node::address(0)).reason ==
        "the host uses its netdev eth5: the default route");
}

TEST_CASE("a function that is a switch's uplink is never offered") {
  Node node;
  node.addVdpa(0, "v0");
  node.addVdpa(1, "v1");
  const auto offers =
      node.offers("  - {name: lan, software: {ports: 1, uplink: {pci: '" + Node::address(0) +
                  "'}}}\n" + "  - {name: nic, devices: [{vendors: ['1af4']}]}\n");
  REQUIRE(offers.resources[1].devices.size() == 1);
  CHECK(offers.resources[1].devices[0].id == Node::address(1));
  CHECK(verdictOf(offers, Node::address(0)).reason == "it is the uplink of vdpa.io/lan");
}

TEST_CASE("a PF without a link makes its VFs unhealthy, unless that is off") {
  Node node;
  node.addVdpa(0, "vdpa0");
  node.snapshot.netdevs.at("eth1").linkUp = false;
  CHECK(node.offers(kNic + "}\n").resources[0].devices[0].unhealthy == "its PF eth1 has no link");
  CHECK(node.offers(kNic + ", linkHealth: false}\n").resources[0].devices[0].unhealthy == "");
}

TEST_CASE("a vDPA device without a PCI function has its bus name as ID") {
  Node node;
  VdpaDevice simulated;
  simulated.name = "sim0";
  simulated.managementDevice = "vdpasim_net";
  simulated.busDriver = "vhost_vdpa";
  simulated.characterDevice = "vhost-vdpa-9";
  node.snapshot.vdpaDevices["sim0"] = simulated;
  ManagementDevice management;
  management.name = "vdpasim_net";
  management.makesNetwork = true;
  node.snapshot.managementDevices["vdpasim_net"] = management;
  const std::string config = "  - {name: sim, devices: [{managementDevices: [vdpasim_net]}]";
  auto offers = node.offers(config + "}\n");
  REQUIRE(idsOf(offers.resources[0]) == std::vector<std::string>{"sim0"});
  CHECK(offers.resources[0].devices[0].numaNode == -1);

  node.snapshot.vdpaDevices.clear();
  offers = node.offers(config + ", provision: vdpa}\n");
  REQUIRE(idsOf(offers.resources[0]) == std::vector<std::string>{"vdpa-vdpasim_net"});
  node.snapshot.vdpaDevices["sim-0"] = simulated;
  node.snapshot.vdpaDevices["sim-0"].name = "sim-0";
  offers = node.offers(
      "  - {name: sim, devices: [{managementDevices: [vdpasim_net]}], software: "
      "{ports: 1}}\n");
  CHECK(idsOf(offers.resources[0]) == std::vector<std::string>{"sim-0"});
  CHECK(offers.resources[0].devices[0].backend == BackendKind::software);
  CHECK_THAT(verdictOf(offers, "sim-0").reason,
             Catch::Contains("a software port has the same name"));
}

TEST_CASE("a scalable function is where its function is, and the host's own is never offered") {
  Node node;
  const std::string name = "auxiliary/mlx5_core.sf.4", pf = "0000:41:00.0";
  node.snapshot.auxiliary["mlx5_core.sf.4"] = {"mlx5_core.sf.4", pf, "", 4, {"eth1s4"}, 1};
  node.snapshot.netdevs["eth1s4"] = {"eth1s4", pf, true, ""};
  ManagementDevice management;
  management.name = name;
  management.makesNetwork = true;
  node.snapshot.managementDevices[name] = management;
  const std::string config =
      "  - {name: sf, devices: [{managementDevices: [" + name + "]}], provision: vdpa}\n";
  const bool made = GENERATE(false, true);
  if (made) {
    VdpaDevice vdpa;
    vdpa.name = "vdpa-mlx5_core.sf.4";
    vdpa.managementDevice = name;
    vdpa.pciAddress = pf;
    vdpa.busDriver = "vhost_vdpa";
    vdpa.characterDevice = "vhost-vdpa-4";
    node.snapshot.vdpaDevices[vdpa.name] = vdpa;
  }
  auto offers = node.offers(config);
  REQUIRE(idsOf(offers.resources[0]) == std::vector<std::string>{"vdpa-mlx5_core.sf.4"});
  CHECK(offers.resources[0].devices[0].numaNode == 1);
  CHECK(offers.resources[0].devices[0].pf == pf);

  node.snapshot.netdevs["eth1s4"].hostUse = "the default route";
  offers = node.offers(config);
  CHECK(offers.resources[0].devices.empty());
  CHECK_THAT(verdictOf(offers, "vdpa-mlx5_core.sf.4").reason,
             Catch::Contains("the host uses its netdev eth1s4"));
}

TEST_CASE("attach chooses the vdpa bus driver") {
  Node node;
  node.addVdpa(0, "vdpa0", "virtio_vdpa");
  node.addVdpa(1, "vdpa1");
  CHECK(idsOf(node.offers(kNic + ", attach: virtio-vdpa}\n").resources[0]) ==
        std::vector<std::string>{Node::address(0)});
  CHECK(idsOf(node.offers(kNic + ", attach: vhost-vdpa}\n").resources[0]) ==
        std::vector<std::string>{Node::address(1)});
}

TEST_CASE("DPDK's drivers get what is bound to their kernel driver") {
  Node node;
  auto& vf = node.snapshot.functions.at(Node::address(0));
  vf.subsystemVendor = "8086";
  vf.subsystemDevice = "001a";
  vf.driver = "vfio-pci";
  const auto automatic = node.offers(kNic + "}\n");
  REQUIRE(automatic.resources[0].devices.size() == 1);
  CHECK(automatic.resources[0].devices[0].backend == BackendKind::dpdk);
  CHECK(automatic.resources[0].devices[0].dpdkDriver == "ifc");
  CHECK(verdictOf(automatic, Node::address(0)).reason == "DPDK driver ifc over vfio-pci");

  vf.driver = "virtio-pci";
  const auto offers = node.offers(kNic + ", backend: dpdk}\n");
  CHECK(verdictOf(offers, Node::address(0)).refusals.at("vdpa.io/nic") ==
        "driver is virtio-pci, needs vfio-pci for DPDK's ifc");
  CHECK(verdictOf(offers, Node::address(1)).refusals.at("vdpa.io/nic") ==
        "1af4:1041 has no DPDK vDPA driver");
}

TEST_CASE("what a pod holds stays in the list when the node loses it") {
  Node node;
  node.addVdpa(0, "vdpa0");
  node.addVdpa(1, "vdpa1");
  const auto before = node.offers(kNic + "}\n").resources;
  node.snapshot.vdpaDevices.erase("vdpa0");
  node.snapshot.functions.erase(Node::address(1));
  const auto found = node.offers(kNic + "}\n");
  CHECK(withHeldDevices(found, before, {}) == found.resources);
  const auto offers = withHeldDevices(found, before,
                                      {{"vdpa.io/nic", Node::address(0)},
                                       {"vdpa.io/nic", Node::address(1)},
                                       {"other/nic", "0000:41:00.9"}});
  REQUIRE(idsOf(offers[0]) == std::vector<std::string>{Node::address(0), Node::address(1)});
  CHECK_THAT(offers[0].devices[0].unhealthy, Catch::Contains("has no vDPA device"));
  CHECK(offers[0].devices[1].unhealthy == "it is no longer on the node");
  CHECK(offers[0].devices[1].vdpa == "vdpa1");

  const auto afterStart = withHeldDevices(found, {}, {{"vdpa.io/nic", Node::address(1)}});
  REQUIRE(idsOf(afterStart[0]) == std::vector<std::string>{Node::address(1)});
  CHECK(afterStart[0].devices[0].unhealthy == "it is no longer on the node");
}
