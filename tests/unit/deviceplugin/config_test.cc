// Every error of the configuration, with its position, and the meaning of a valid file.
#include "deviceplugin/config/config.h"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "common/backend.h"
#include "deviceplugin/config/selector.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

std::string errorOf(const std::string& text) {
  try {
    parseConfig(text, "f");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

const std::string kStart = "resources:\n  - name: nic\n    software: {ports: 2}\n";
const std::string kHardware = "resources:\n  - name: nic\n    devices: [{vendors: ['15b3']}]\n";
const std::string kProvisioned = kHardware + "    provision: vdpa\n";
const std::string kFourPairs =
    "resources:\n  - name: nic\n    provision: vdpa\n    devices: [{minQueuePairs: 4}]\n";

}  // namespace

TEST_CASE("defaults and every key") {
  const auto minimal = parseConfig(kStart, "f").resources.at(0);
  CHECK(minimal.fullName() == "vdpa.io/nic");
  CHECK(minimal.socket == SocketConfig{0, 0, 0666, ""});
  CHECK(minimal.software == SoftwareConfig{2, 1, 1500, {}, "", {true, 10000}});

  const auto full =
      parseConfig(
          "resources:\n"
          "  - name: lan_1.x\n"
          "    prefix: dev.vdpa.io\n"
          "    backend: auto\n"
          "    attach: vhost-user\n"
          "    socket: {uid: 107, gid: 108, mode: \"0660\", selinuxLabel: \"s:c1,c2\"}\n"
          "    software: {ports: 4096, queuePairs: 16, mtu: 9000, uplink: {netdev: eth1}, cores: "
          "\"2-3,6\", offloads: false, stormLimit: 0}\n",
          "f")
          .resources.at(0);
  CHECK(full.fullName() == "dev.vdpa.io/lan_1.x");
  CHECK(full.socket == SocketConfig{107, 108, 0660, "s:c1,c2"});
  CHECK(full.software == SoftwareConfig{4096, 16, 9000, {"eth1"}, "2-3,6", {false, 0}});
}

TEST_CASE("resources of some nodes") {
  const std::string file =
      "resources:\n"
      "  - {name: all, software: {ports: 1}}\n"
      "  - {name: nic, nodes: [\"worker-*\", \"gpu-?\"], software: {ports: 2}}\n"
      "  - {name: nic, nodes: [edge-1.example], software: {ports: 3}}\n";
  const auto portsOn = [&](const std::string& node) {
    std::vector<unsigned> ports;
    for (const auto& resource : parseConfig(file, "f", node).resources)
      ports.push_back(resource.software->ports);
    return ports;
  };
  using Ports = std::vector<unsigned>;
  CHECK(portsOn("worker-") == Ports{1, 2});
  CHECK(portsOn("worker-3.example") == Ports{1, 2});
  CHECK(portsOn("gpu-1") == Ports{1, 2});
  CHECK(portsOn("gpu-10") == Ports{1});
  CHECK(portsOn("a-worker-1") == Ports{1});
  CHECK(portsOn("edge-1.example") == Ports{1, 3});
  CHECK(portsOn("edge-1-example") == Ports{1});

  // A node may have none.
  CHECK(parseConfig(kStart + "    nodes: [a]\n", "f", "b").resources.empty());
  // Resources of one name are refused where both apply, and all of the file is checked everywhere.
  const auto errorOn = [&](const std::string& text, const std::string& node) -> std::string {
    try {
      parseConfig(text, "f", node);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(errorOn(file + "  - {name: nic, nodes: [\"*\"], software: {ports: 3}}\n", "worker-1"),
             Catch::StartsWith("f:5:5: vdpa.io/nic and an earlier vdpa.io/nic would share"));
  CHECK_THAT(errorOn(kStart + "    nodes: [a]\n    mtu: 1\n", "b"),
             Catch::StartsWith("f:5:5: unknown key 'mtu' in resource"));
  const std::string names =
      "; expected names of nodes, in which * stands for any characters and ? for one, such as "
      "\"worker-*\"";
  CHECK(errorOn(kStart + "    nodes: [Worker]\n", "b") == "f:4:13: nodes has 'Worker'" + names);
  CHECK(errorOn(kStart + "    nodes: [a, [b]]\n", "a") == "f:4:16: nodes has a list" + names);
  CHECK(errorOn(kStart + "    nodes: ['']\n", "a") == "f:4:13: nodes has ''" + names);
  CHECK(
      errorOf(kStart + "    nodes: [a]\n") ==
      "f:4:13: nodes is set, but this node's name is unknown; expected --node-name on the command "
      "line");
}

TEST_CASE("uplinks") {
  const auto uplinkOf = [](const std::string& value) {
    return parseConfig("resources:\n  - {name: a, software: {ports: 1, uplink: " + value + "}}\n",
                       "f")
        .resources.at(0)
        .software->uplink;
  };
  CHECK(uplinkOf("none") == UplinkConfig());
  CHECK(uplinkOf("{netdev: eth1}") == UplinkConfig{.netdev = "eth1"});
  CHECK(uplinkOf("{netdev: eth1, xdp: false}") == UplinkConfig{.netdev = "eth1"});
  CHECK(uplinkOf("{netdev: eth1, xdp: true}") == UplinkConfig{.netdev = "eth1", .xdp = true});
  CHECK(uplinkOf("{pci: 0000:03:00.0}") == UplinkConfig{.pci = "0000:03:00.0"});
  // Packet sockets share a netdev.
  CHECK(parseConfig("resources:\n"
                    "  - {name: a, software: {ports: 1, uplink: {netdev: eth1}}}\n"
                    "  - {name: b, software: {ports: 1, uplink: {netdev: eth1}}}\n",
                    "f")
            .resources.size() == 2);
}

TEST_CASE("a resource of hardware devices") {
  const auto minimal =
      parseConfig("resources:\n  - {name: nic, devices: [{vendors: ['15b3']}]}\n", "f")
          .resources.at(0);
  CHECK(minimal.backend == BackendChoice::automatic);
  CHECK(minimal.attach == Attach::vhostUser);
  CHECK_FALSE(minimal.provision);
  CHECK(minimal.topology);
  CHECK(minimal.linkHealth);
  CHECK(minimal.allocation == AllocationOrder::spread);
  CHECK_FALSE(minimal.software);

  const auto full = parseConfig(
                        "resources:\n"
                        "  - name: nic\n"
                        "    backend: kernel\n"
                        "    attach: vhost-vdpa\n"
                        "    provision: vdpa\n"
                        "    topology: false\n"
                        "    linkHealth: false\n"
                        "    allocation: pack\n"
                        "    devices:\n"
                        "      - {pfNames: [\"ens1f0#0-3,7\"], rootDevices: [\"0000:65:00.0\"]}\n"
                        "      - {numaNodes: [0, 1], minQueuePairs: 2, drivers: [mlx5_core]}\n",
                        "f")
                        .resources.at(0);
  CHECK(full.backend == BackendChoice::kernel);
  CHECK(full.attach == Attach::vhostVdpa);
  CHECK(full.provision);
  CHECK_FALSE(full.topology);
  CHECK_FALSE(full.linkHealth);
  CHECK(full.allocation == AllocationOrder::pack);
  REQUIRE(full.devices.size() == 2);
  CHECK(full.devices[0].pfNames == std::vector<PfSelector>{{"ens1f0", {{0, 3}, {7, 7}}}});
  CHECK(full.devices[0].rootDevices == std::vector<PfSelector>{{"0000:65:00.0", {}}});
  CHECK(full.devices[1].numaNodes == std::vector<int>{0, 1});
  CHECK(full.devices[1].minQueuePairs == 2);
  CHECK(
      parseConfig("resources:\n  - {name: n, devices: [{vendors: ['1af4']}], backend: dpdk, dpdk: "
                  "{devargs: 'sw-live-migration=1'}}\n",
                  "f")
          .resources[0]
          .devargs == "sw-live-migration=1");
}

TEST_CASE("the attributes of vDPA devices: defaults, and all of them") {
  CHECK(parseConfig(kProvisioned, "f").resources[0].vdpa == VdpaConfig());
  const std::string vdpa =
      "    vdpa: {queuePairs: 4, mtu: 9000, features: [MAC, MTU, MQ, CTRL_VQ, bit_40]}\n";
  CHECK(parseConfig(kFourPairs + vdpa, "f").resources[0].vdpa.pairs() == 4);
  CHECK(parseConfig(kFourPairs + "    vdpa: {mtu: 9000}\n", "f").resources[0].vdpa.pairs() == 0);
  CHECK(parseConfig(kProvisioned + vdpa, "f").resources[0].vdpa ==
        VdpaConfig{4, 9000, 1ull << 40 | 1u << 22 | 1u << 17 | 1u << 5 | 1u << 3});
}

TEST_CASE("errors name place, problem and what was expected") {
  const auto [text, start] = GENERATE(table<std::string, std::string>({
      {"", "f:1:1: the file holds 0 YAML documents; expected one"},
      {"a: 1\n---\nb: 1\n", "f:1:1: the file holds 2 YAML documents"},
      {"resources:\n  - {name: a\n  - b", "f:3:1: "},
      {"[1]", "f:1:1: the file is a list; expected a map with one of resources"},
      {"resource: []", "f:1:1: unknown key 'resource' in the file; expected one of resources"},
      {"resources: 3", "f:1:12: resources is not a list; expected a list of 1 to 64 resources"},
      {"resources: []", "f:1:12: resources has 0 entries"},
      {"resources: [1]", "f:1:13: resource is a value; expected a map"},
      {"resources:\n  - software: {ports: 1}\n", "f:2:5: resource lacks 'name'"},
      {"resources:\n  - name: nic\n", "f:2:5: resource lacks 'software'"},
      {"resources:\n  - name: Nic\n    software: {ports: 1}\n",
       "f:2:11: name is 'Nic'; expected lower-case"},
      {"resources:\n  - name: [nic]\n    software: {ports: 1}\n", "f:2:11: name is a list"},
      {kStart + "    name: two\n",
       "f:4:5: key 'name' appears twice in resource; expected each key once"},
      {kStart + "    prefix: vdpa\n", "f:4:13: prefix is 'vdpa'; expected a DNS name"},
      {kStart + "    backend: fast\n",
       "f:4:14: backend is 'fast'; expected auto or kernel or dpdk or software"},
      {kStart + "    backend: kernel\n",
       "f:3:15: software cannot be combined with a hardware backend; expected backend auto or "
       "software"},
      {kStart + "    attach: virtio-vdpa\n",
       "f:4:13: attach is 'virtio-vdpa' with software; expected vhost-user"},
      {kStart + "    devices: []\n", "f:4:14: devices has 0 entries; expected a list of 1 to"},
      {kStart + "    devices: {}\n", "f:4:14: devices is a map; expected a list"},
      {kStart + "    devices: [{}]\n", "f:4:15: an entry of devices is empty; expected"},
      {kStart + "    devices: [{vendor: ['15b3']}]\n",
       "f:4:16: unknown key 'vendor' in an entry of devices; expected one of vendors"},
      {kStart + "    devices: [{vendors: ['15B3']}]\n",
       "f:4:26: an entry of vendors is '15B3'; expected four lower-case hex digits"},
      {kStart + "    devices: [{vendors: '15b3'}]\n", "f:4:25: vendors is '15b3'; expected a list"},
      {kStart + "    devices: [{pciAddresses: ['65:00.2']}]\n",
       "f:4:31: an entry of pciAddresses is '65:00.2'; expected a PCI address"},
      {kStart + "    devices: [{pfNames: ['eth0#3-1']}]\n",
       "f:4:26: an entry of pfNames is 'eth0#3-1'; expected a PF's netdev"},
      {kStart + "    devices: [{pfNames: ['#1']}]\n", "f:4:26: an entry of pfNames is '#1'"},
      {kStart + "    devices: [{rootDevices: [eth0]}]\n",
       "f:4:30: an entry of rootDevices is 'eth0'; expected a PF's PCI address"},
      {kStart + "    devices: [{numaNodes: [-1]}]\n", "f:4:28: an entry of numaNodes is '-1'"},
      {kStart + "    devices: [{minQueuePairs: 0}]\n", "f:4:31: minQueuePairs is '0'"},
      {kStart + "    provision: vdpa\n", "f:4:16: provision is set without devices"},
      {kStart + "    vdpa: {mtu: 9000}\n", "f:4:11: vdpa is set without devices"},
      {kHardware + "    vdpa: {mtu: 9000}\n",
       "f:4:11: vdpa is set without provision; expected provision: vdpa as well"},
      {kProvisioned + "    vdpa: {count: 2}\n",
       "f:5:12: unknown key 'count' in vdpa; expected one of queuePairs, mtu, features"},
      {kProvisioned + "    vdpa: {queuePairs: 0}\n", "f:5:24: queuePairs is '0'"},
      {kProvisioned + "    vdpa: {mtu: 65536}\n", "f:5:17: mtu is '65536'"},
      {kProvisioned + "    vdpa: {features: [MAC, CTRL_VQUEUE]}\n",
       "f:5:28: features has 'CTRL_VQUEUE'; expected a feature as `vdpa mgmtdev show` names it: "
       "CSUM, GUEST_CSUM, "},
      {kProvisioned + "    vdpa: {features: MAC}\n", "f:5:22: features is 'MAC'"},
      {kProvisioned + "    vdpa: {queuePairs: 2, features: [MAC, MQ]}\n",
       "f:5:24: queuePairs needs CTRL_VQ, which features lacks"},
      {kProvisioned + "    vdpa: {queuePairs: 1, features: [MAC, MQ]}\n",
       "f:5:37: MQ needs CTRL_VQ, which features lacks"},
      {kFourPairs + "    vdpa: {queuePairs: 2}\n",
       "f:4:31: minQueuePairs is 4, but vdpa makes devices of 2 queue pairs; expected at most 2, "
       "or "
       "more in vdpa"},
      {kFourPairs + "    vdpa: {features: [MAC, MTU]}\n",
       "f:4:31: minQueuePairs is 4, but vdpa makes devices of 1 queue pair (its features lack MQ)"},
      {kProvisioned + "    vdpa: {mtu: 9000, features: [MAC]}\n",
       "f:5:17: mtu needs MTU, which features lacks"},
      {kStart + "    topology: maybe\n", "f:4:15: topology is 'maybe'; expected true or false"},
      {kStart + "    backend: software\n    devices: [{vendors: ['15b3']}]\n",
       "f:5:14: devices cannot be combined with backend: software"},
      {"resources:\n  - {name: a, backend: dpdk, provision: vdpa, devices: [{vendors: "
       "['1af4']}]}\n",
       "f:2:24: backend is 'dpdk' with attach or provision"},
      {"resources:\n  - {name: a, dpdk: {devargs: 'a b'}, devices: [{vendors: ['1af4']}]}\n",
       "f:2:31: devargs is 'a b'"},
      {"resources:\n  - {name: a, allocation: most, devices: [{vendors: ['1af4']}]}\n",
       "f:2:27: allocation is 'most'; expected spread or pack"},
      {kStart + "    socket: {mode: 0866}\n", "f:4:20: mode is '0866'; expected permission bits"},
      {kStart + "    socket: {mode: \"7777\"}\n", "f:4:20: mode is '7777'"},
      {kStart + "    socket: {uid: -1}\n", "f:4:19: uid is '-1'; expected a whole number from 0"},
      {kStart + "    socket: {uid: \"1\"}\n", "f:4:19: uid is '1' in quotes"},
      {kStart + "    socket: {user: 1}\n", "f:4:14: unknown key 'user' in socket"},
      {"resources:\n  - name: a\n    software: {}\n", "f:3:15: software lacks 'ports'"},
      {"resources:\n  - name: a\n    software: {ports: 0}\n",
       "f:3:23: ports is '0'; expected a whole number from 1 to 4096"},
      {"resources:\n  - name: a\n    software: {ports: 4097}\n", "f:3:23: ports is '4097'"},
      {"resources:\n  - name: a\n    software: {ports: 2.5}\n", "f:3:23: ports is '2.5'"},
      {"resources:\n  - name: a\n    software: {ports: 99999999999}\n",
       "f:3:23: ports is '99999999999'"},
      {"resources:\n  - name: a\n    software: {ports: 1, queuePairs: 17}\n",
       "f:3:38: queuePairs is '17'"},
      {"resources:\n  - name: a\n    software: {ports: 1, mtu: 67}\n", "f:3:31: mtu is '67'"},
      {"resources:\n  - name: a\n    software: {ports: 1, offloads: maybe}\n",
       "f:3:36: offloads is 'maybe'"},
      {"resources:\n  - name: a\n    software: {ports: 1, stormLimit: 1000001}\n",
       "f:3:38: stormLimit is '1000001'"},
      {"resources:\n  - name: a\n    software: {ports: 1, stormLimit: none}\n",
       "f:3:38: stormLimit is 'none'"},
      {"resources:\n  - name: a\n    devices: [{vendors: ['15b3']}]\n    offloads: false\n",
       "f:4:5: unknown key 'offloads' in resource"},
      {"resources:\n  - name: a\n    software: {ports: 1, cores: 3-2}\n",
       "f:3:33: cores is '3-2'; expected a CPU list"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: eth0}\n",
       "f:3:34: uplink is not a map; expected {netdev: NAME}, {pci: ADDRESS} or none"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {netdev: a/b}}\n",
       "f:3:43: netdev is 'a/b'"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {mac: x}}\n",
       "f:3:35: unknown key 'mac' in uplink; expected one of netdev, xdp, pci"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {}}\n",
       "f:3:34: uplink lacks 'netdev'; expected {netdev: NAME}, {pci: ADDRESS} or none"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {pci: '03:00.0'}}\n",
       "f:3:40: pci is '03:00.0'; expected a PCI address such as \"0000:65:00.0\""},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {pci: '0000:03:00.0', netdev: "
       "eth1}}\n",
       "f:3:64: uplink has both pci and netdev; expected {netdev: NAME}, {pci: ADDRESS} or none"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {pci: '0000:03:00.0', xdp: "
       "true}}\n",
       "f:3:61: uplink has both pci and xdp"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {netdev: eth1, xdp: 1}}\n",
       "f:3:54: xdp is '1'; expected true or false"},
      {"resources:\n  - {name: a, software: {ports: 1, uplink: {pci: '0000:03:00.0'}}}\n"
       "  - {name: b, software: {ports: 1, uplink: {pci: '0000:03:00.0'}}}\n",
       "f:3:44: vdpa.io/b and an earlier vdpa.io/a would share the uplink 0000:03:00.0; expected "
       "another function"},
      {"resources:\n  - {name: a, software: {ports: 1, uplink: {netdev: eth1, xdp: true}}}\n"
       "  - {name: b, software: {ports: 1, uplink: {netdev: eth1}}}\n",
       "f:3:44: vdpa.io/b and an earlier vdpa.io/a would share the uplink eth1; expected another "
       "netdev, or none with xdp"},
      {"resources:\n  - name: a\n    software: {ports: 1, cores: 1--2}\n",
       "f:3:33: cores is '1--2'"},
      {"resources:\n  - name: a\n    software: {ports: 1, uplink: {netdev: \"a\\nb\"}}\n",
       "f:3:43: netdev is"},
      {kStart + "    prefix: node.kubernetes.io\n", "f:4:13: prefix is 'node.kubernetes.io'"},
      {kStart + "  - name: nic-sockets\n    software: {ports: 2}\n",
       "f:4:5: vdpa.io/nic-sockets and an earlier vdpa.io/nic would share the variable "
       "VDPA_IO_NIC_SOCKETS"},
      {kStart + "  - name: nic\n    software: {ports: 2}\n",
       "f:4:5: vdpa.io/nic and an earlier vdpa.io/nic would share the variable VDPA_IO_NIC"},
      {kStart + "  - name: nic\n    prefix: a.b\n    software: {ports: 2}\n",
       "f:4:5: a.b/nic and an earlier vdpa.io/nic would share the device ID nic-0"},
      {"resources:\n  - {name: a-b, software: {ports: 1}}\n  - {name: a_b, software: {ports: 1}}\n",
       "f:3:5: vdpa.io/a_b and an earlier vdpa.io/a-b would share the variable"},
  }));
  CAPTURE(text);
  CHECK_THAT(errorOf(text), Catch::StartsWith(start));
}

TEST_CASE("aliases that explode, depth and size end in an error, quickly") {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 9; ++k) bomb += "*a" + std::to_string(i - 1) + (k < 8 ? ", " : "]\n");
  }
  CHECK_THAT(errorOf(bomb + "resources: *a29\n"), Catch::Contains("unknown key 'a0'"));
  CHECK_THAT(errorOf("resources: &r [{name: a, software: &s {ports: 1}}, *r]\n"),
             Catch::Contains("f:1:"));
  CHECK_THAT(errorOf(std::string(60000, '[')), Catch::StartsWith("f:1:"));
  CHECK_THAT(errorOf(std::string(2 << 20, ' ')), Catch::Contains("the file has 2097152 bytes"));
}

TEST_CASE("a file that is not there is named") {
  CHECK_THROWS_WITH(loadConfig("/nowhere/config.yaml", "worker-1"),
                    Catch::Contains("/nowhere/config.yaml"));
}
