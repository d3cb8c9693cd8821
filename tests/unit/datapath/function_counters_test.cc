// Counters of VFs and SFs: a link's attributes, and representors in sysfs.
#include "deviceplugin/datapath/hardware/function_counters.h"

#include <catch2/catch.hpp>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/sysfs_names.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "tests/unit/datapath/vf_message.h"
#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

constexpr const char* kPf = "0000:65:00.0";

struct Message : VfMessage {
  void add(unsigned vf, const std::map<uint16_t, uint64_t>& counters) {
    addVf([&](nlmsghdr* header) {
      const ifla_vf_mac mac{vf, {}};
      mnl_attr_put(header, IFLA_VF_MAC, sizeof mac, &mac);
      nlattr* statistics = mnl_attr_nest_start(header, IFLA_VF_STATS);
      for (const auto& [type, value] : counters) mnl_attr_put_u64(header, type, value);
      mnl_attr_nest_end(header, statistics);
    });
  }
};

// A PF with two VFs and the SF 88 ("mlx5_core.sf.4").
class Tree {
 public:
  Tree() {
    tree_.add({.address = kPf, .driver = "mlx5_core"});
    for (const std::string vf : {"0000:65:00.2", "0000:65:00.3"}) {
      tree_.add({.address = vf});
      tree_.link(tree_.pathOf(kPf), tree_.pathOf(vf) + "/physfn");
    }
    tree_.setVfs(kPf, {"0000:65:00.2", "0000:65:00.3"});
    tree_.addSlice(kPf, "mlx5_core.sf.4", 88);
    addNetdev("ens1f0", "p0", 8);
  }
  void addNetdev(const std::string& name, const std::string& port, int index) {
    const std::string path = tree_.pathOf(kPf) + "/net/" + name;
    tree_.write(path + "/ifindex", std::to_string(index));
    tree_.write(path + "/phys_port_name", port + "\n");
  }
  // Its counters in the order of `first`, `first` + 1, ...
  void addRepresentor(const std::string& port, unsigned first) {
    addNetdev("rep-" + port, port, 20);
    for (const char* name :
         {"tx_packets", "tx_bytes", "rx_packets", "rx_bytes", "tx_dropped", "rx_dropped"})
      tree_.write(tree_.pathOf(kPf) + "/net/rep-" + port + "/statistics/" + name,
                  std::to_string(first++) + "\n");
  }
  std::map<std::string, DeviceCounters> read(const VfCounters& vfs = {}) const {
    std::map<std::string, DeviceConfig> devices;
    devices["0000:65:00.2"].pciAddress = "0000:65:00.2";
    devices["0000:65:00.3"].pciAddress = "0000:65:00.3";
    devices["sf"].managementDevice = "auxiliary/mlx5_core.sf.4";
    devices["sim"].managementDevice = "vdpasim_net";
    devices["pf"].pciAddress = kPf;
    const auto attempt = [&](const std::string& what, const std::function<void()>& read) {
      CHECK(what == std::string("the counters of the functions of ") + kPf);
      if (late) return;
      try {
        read();
      } catch (const std::runtime_error&) {
        CHECK(fails);
      }
    };
    return readFunctionCounters(tree_.path(), devices, attempt, [&](unsigned index) {
      CHECK(index == 8);
      ++reads_;
      if (fails) throw std::runtime_error("no");
      return vfs;
    });
  }
  unsigned reads() const { return reads_; }
  bool fails = false, late = false;

 private:
  SysfsTree tree_;
  mutable unsigned reads_ = 0;
};

void checkCounters(const DeviceCounters& counters, unsigned first) {
  CHECK(counters.rxPackets == first);
  CHECK(counters.rxBytes == first + 1);
  CHECK(counters.txPackets == first + 2);
  CHECK(counters.txBytes == first + 3);
  CHECK(counters.drops ==
        std::map<std::string, uint64_t>{{"receive", first + 4}, {"transmit", first + 5}});
}

}  // namespace

TEST_CASE("function counters: each VF's of a link") {
  Message message;
  message.add(0, {{IFLA_VF_STATS_RX_PACKETS, 0}});
  message.add(3, {{IFLA_VF_STATS_RX_PACKETS, 10},
                  {IFLA_VF_STATS_RX_BYTES, 11},
                  {IFLA_VF_STATS_TX_PACKETS, 12},
                  {IFLA_VF_STATS_TX_BYTES, 13},
                  {IFLA_VF_STATS_BROADCAST, 99},
                  {IFLA_VF_STATS_RX_DROPPED, 14},
                  {IFLA_VF_STATS_TX_DROPPED, 15}});
  const auto attributes = message.attributes();
  const auto vfs = parseVfCounters(attributes);
  REQUIRE(vfs.size() == 2);
  checkCounters(vfs.at(3), 10);
  for (size_t length = 0; length < attributes.size(); ++length)
    CHECK(parseVfCounters(attributes.first(length)).size() <= 2);  // nothing beyond is read
}

TEST_CASE("function counters: the PF's, by one request for all its VFs") {
  const Tree tree;
  const DeviceCounters counted{"", 10, 11, 12, 13, {{"receive", 14}, {"transmit", 15}}};
  const auto found = tree.read({{0, {}}, {1, counted}});
  CHECK(tree.reads() == 1);
  REQUIRE(found.size() == 1);  // VF 0 counts nothing, and the rest has no place
  CHECK(found.begin()->first == "0000:65:00.3");
  CHECK(found.begin()->second.id == "0000:65:00.3");
  checkCounters(found.begin()->second, 10);
}

TEST_CASE("function counters: representors, which transmit what their function receives") {
  Tree tree;
  tree.addRepresentor("pf0vf0", 30);
  tree.addRepresentor("pf0sf88", 40);
  tree.addRepresentor("c1pf0sf88", 50);
  tree.fails = GENERATE(false, true);  // a PF that counts nothing, or does not answer
  const auto found = tree.read({{0, {}}, {1, {}}});
  REQUIRE(found.size() == 2);
  checkCounters(found.at("0000:65:00.2"), 30);
  checkCounters(found.at("sf"), 40);
}

TEST_CASE("function counters: of a PF for which no time is left, nothing is read") {
  Tree tree;
  tree.addRepresentor("pf0vf0", 30);
  tree.late = true;
  CHECK(tree.read({{1, {"", 10, 11, 12, 13, {}}}}).empty());
  CHECK(tree.reads() == 0);
}

TEST_CASE("represented functions") {
  using Kind = Represented::Kind;
  CHECK(represented("pf0vf12") == Represented{Kind::vf, 12});
  CHECK(represented("pf1sf88") == Represented{Kind::sf, 88});
  for (const char* other : {"p0", "pf0", "pf0vf", "pf0vfx", "pfvf1", "pf0vf1x", "c1pf0sf88", ""})
    CHECK_FALSE(represented(other));
}
