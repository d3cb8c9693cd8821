// The meaning of each key of a selector, and the reasons for a mismatch.
#include "deviceplugin/resources/match.h"

#include <catch2/catch.hpp>
#include <yaml-cpp/yaml.h>

#include <stdexcept>
#include <string>

#include "deviceplugin/config/selector.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/candidate.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

Selector selectorOf(const std::string& text) {
  return parseSelector(YAML::Load(text), "f");
}

struct Node {
  Snapshot snapshot;
  Node() {
    PciFunction pf{"0000:65:00.0", "15b3", "101d", "15b3", "0001", 0x020000, "mlx5_core", 1, {},
                   {"ens1f0"},     "",     0,      4};
    PciFunction vf{"0000:65:00.4", "15b3",      "101e", "15b3", "0001",
                   0x020000,       "mlx5_core", 1,      {},     {"ens1f0v2"},
                   "0000:65:00.0", 2,           0};
    snapshot.functions = {{pf.address, pf}, {vf.address, vf}};
    snapshot.pfNetdevs = {{pf.address, "ens1f0"}};
    ManagementDevice management;
    management.name = "pci/0000:65:00.4";
    management.pciAddress = vf.address;
    management.makesNetwork = true;
    management.maxVirtqueues = 5;
    snapshot.managementDevices = {{management.name, management}};
  }
  Candidate vf() const {
    for (const auto& candidate : findCandidates(snapshot))
      if (candidate.id == "0000:65:00.4") return candidate;
    throw std::runtime_error("no VF");
  }
};

}  // namespace

TEST_CASE("a VF that matches every key") {
  const Node node;
  CHECK(mismatch(selectorOf("{vendors: ['15b3'], devices: ['101e'], drivers: [mlx5_core], "
                            "pciAddresses: ['0000:65:00.4'], pfNames: ['ens1f0#0-1,2'], "
                            "rootDevices: ['0000:65:00.0#2'], numaNodes: [0, 1], minQueuePairs: 2, "
                            "managementDevices: ['pci/0000:65:00.4']}"),
                 node.vf(), "", node.vf().queuePairs()) == "");
}

TEST_CASE("the first key that doesn't match says so") {
  const Node node;
  const auto [selector, reason] = GENERATE(table<std::string, std::string>({
      {"{vendors: ['8086', '1af4']}", "vendor is 15b3, needs 8086 or 1af4"},
      {"{devices: ['1018']}", "device is 101e, needs 1018"},
      {"{drivers: [vfio-pci]}", "driver is mlx5_core, needs vfio-pci"},
      {"{pciAddresses: ['0000:65:00.2']}", "PCI address is 0000:65:00.4, needs 0000:65:00.2"},
      {"{pfNames: ['ens1f1']}", "is VF 2 of PF ens1f0, needs ens1f1"},
      {"{pfNames: ['ens1f0#0-1,7']}", "is VF 2 of PF ens1f0, needs ens1f0#0-1,7"},
      {"{rootDevices: ['0000:65:00.1']}",
       "is VF 2 of root device 0000:65:00.0, needs 0000:65:00.1"},
      {"{numaNodes: [0]}", "NUMA node is 1, needs 0"},
      {"{minQueuePairs: 3}", "has 2 queue pairs, needs 3"},
      {"{managementDevices: [vdpasim_net]}",
       "management device is pci/0000:65:00.4, needs vdpasim_net"},
  }));
  CHECK(mismatch(selectorOf(selector), node.vf(), "", node.vf().queuePairs()) == reason);
}

TEST_CASE("a driver that provisioning binds counts as the one asked for") {
  Node node;
  node.snapshot.functions.at("0000:65:00.4").driver = "vp-vdpa";
  const auto selector = selectorOf("{drivers: [virtio-pci]}");
  CHECK(mismatch(selector, node.vf(), "vp-vdpa", node.vf().queuePairs()) == "");
  CHECK(mismatch(selector, node.vf(), "", node.vf().queuePairs()) ==
        "driver is vp-vdpa, needs virtio-pci");
  node.snapshot.functions.at("0000:65:00.4").driver = "";
  CHECK(mismatch(selector, node.vf(), "vp-vdpa", node.vf().queuePairs()) ==
        "driver is none, needs virtio-pci");
}
