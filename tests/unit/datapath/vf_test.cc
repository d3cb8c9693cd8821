// VFs as the kernel reports them: a link's attributes, and their place in sysfs.
#include "deviceplugin/datapath/hardware/vf.h"

#include <catch2/catch.hpp>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/port_settings.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "tests/unit/datapath/fake_pf.h"
#include "tests/unit/datapath/vf_message.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

struct Message : VfMessage {
  void add(const ifla_vf_mac& mac, const ifla_vf_vlan_info& vlan, uint32_t spoofCheck,
           uint32_t trust, uint32_t linkState) {
    addVf([&](nlmsghdr* header) {
      mnl_attr_put(header, IFLA_VF_MAC, sizeof mac, &mac);
      nlattr* vlans = mnl_attr_nest_start(header, IFLA_VF_VLAN_LIST);
      mnl_attr_put(header, IFLA_VF_VLAN_INFO, sizeof vlan, &vlan);
      mnl_attr_nest_end(header, vlans);
      const ifla_vf_rate rate{mac.vf, 10, 20};
      mnl_attr_put(header, IFLA_VF_RATE, sizeof rate, &rate);
      const ifla_vf_spoofchk check{mac.vf, spoofCheck};
      mnl_attr_put(header, IFLA_VF_SPOOFCHK, sizeof check, &check);
      const ifla_vf_trust trusted{mac.vf, trust};
      mnl_attr_put(header, IFLA_VF_TRUST, sizeof trusted, &trusted);
      const ifla_vf_link_state state{mac.vf, linkState};
      mnl_attr_put(header, IFLA_VF_LINK_STATE, sizeof state, &state);
    });
  }
};

}  // namespace

TEST_CASE("VF: its settings among those of others") {
  Message message;
  message.add({0, {}}, {0, 0, 0, htons(ETH_P_8021Q)}, 1, UINT32_MAX, IFLA_VF_LINK_STATE_AUTO);
  message.add({1, {2, 0, 0, 0, 0, 0x1f}}, {1, 100, 3, htons(ETH_P_8021AD)}, 0, 1,
              IFLA_VF_LINK_STATE_DISABLE);
  const auto attributes = message.attributes();
  const auto first = parseVf(attributes, 0);
  REQUIRE(first);
  CHECK_FALSE(first->mac);
  CHECK(first->vlan == 0u);
  CHECK(first->vlanProto == VlanProtocol::dot1q);
  CHECK(first->spoofCheck == true);
  CHECK_FALSE(first->trust);  // not reported
  CHECK(first->linkState == LinkState::automatic);
  const auto second = parseVf(attributes, 1);
  REQUIRE(second);
  CHECK(*second == VfValues{.mac = "02:00:00:00:00:1f"_mac,
                            .vlan = 100,
                            .vlanQos = 3,
                            .vlanProto = VlanProtocol::dot1ad,
                            .spoofCheck = false,
                            .trust = true,
                            .linkState = LinkState::disable,
                            .minTxRate = 10,
                            .maxTxRate = 20,
                            .mtu = {}});
  CHECK_FALSE(parseVf(attributes, 2));
}

TEST_CASE("VF: what is cut off is as if it wasn't there") {
  Message message;
  message.add({0, {2}}, {0, 5, 0, 0}, 0, 0, 0);
  const auto attributes = message.attributes();
  for (size_t length = 0; length < attributes.size(); ++length)
    CHECK_NOTHROW(parseVf(attributes.first(length), 0));
}

TEST_CASE(
    "VF: all its settings by one request, and set by one message in the order that is asked") {
  FakePf pf;
  pf.values = {.mac = "02:00:00:00:00:1f"_mac,
               .vlan = 7,
               .vlanQos = 1,
               .vlanProto = VlanProtocol::dot1ad,
               .spoofCheck = true,
               .trust = false,
               .linkState = LinkState::enable,
               .minTxRate = 10,
               .maxTxRate = 20,
               .mtu = {}};
  Vf vf = pf.vf();
  CHECK(vf.get() == pf.values);
  CHECK(pf.gets == 1);
  const std::vector parts{VfPart::linkState, VfPart::trust, VfPart::spoofCheck,
                          VfPart::rate,      VfPart::vlan,  VfPart::mac};
  const VfValues wanted{.mac = {},
                        .vlan = 100,
                        .vlanQos = 3,
                        .vlanProto = VlanProtocol::dot1q,
                        .spoofCheck = false,
                        .trust = true,
                        .linkState = LinkState::disable,
                        .minTxRate = 0,
                        .maxTxRate = 500,
                        .mtu = {}};
  CHECK(vf.set(wanted, parts).empty());
  CHECK(pf.sets == 1);
  CHECK(pf.written == parts);
  CHECK(pf.values == wanted);
  CHECK(vf.get() == wanted);
  CHECK(vf.set(VfValues{}, {}).empty());
  CHECK(pf.sets == 1);  // nothing to set
}

TEST_CASE("VF: the parts that are refused, each with the driver's words") {
  FakePf pf;
  pf.refused = {VfPart::vlan, VfPart::trust};
  Vf vf = pf.vf();
  const std::vector parts{VfPart::mac, VfPart::vlan, VfPart::rate, VfPart::trust};
  VfValues wanted = unreportedVf();
  wanted.mac = "02:00:00:00:00:1f"_mac;
  wanted.vlan = 100;
  wanted.maxTxRate = 500;
  wanted.spoofCheck = false;
  wanted.trust = true;
  const auto refused = vf.set(wanted, parts);
  REQUIRE(refused.size() == 2);
  CHECK(refused[0].part == VfPart::vlan);
  CHECK(refused[0].error.number == EOPNOTSUPP);
  CHECK(refused[0].error.text == "no such setting");
  CHECK(refused[1].part == VfPart::trust);
  CHECK(pf.values.mac == wanted.mac);
  CHECK(pf.values.maxTxRate == 500u);  // after one that is refused
  CHECK(pf.values.vlan == 0u);
  pf.sets = 0;
  CHECK(vf.set(wanted, std::span(parts).subspan(1, 1)).size() == 1);
  CHECK(pf.sets == 1);  // it is clear which
}

TEST_CASE("VF: a PF whose driver has no settings of VFs, or that is gone") {
  FakePf pf;
  Vf vf = pf.vf();
  pf.settable = false;
  CHECK_FALSE(vf.get());
  pf.present = false;
  CHECK_FALSE(vf.get());
  const std::vector parts{VfPart::vlan, VfPart::rate};
  CHECK(vf.set({}, parts).size() == 2);
}
