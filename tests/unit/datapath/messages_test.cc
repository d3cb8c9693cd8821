// Requests and answers of the gRPC interface: how settings come and go.
#include "deviceplugin/datapath/api/messages.h"

#include <catch2/catch.hpp>

#include <string>

#include "common/port_settings.h"
#include "common/vlan_ranges.h"
#include "datapath.pb.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

template <typename Change>
void refused(const std::string& setting, Change change) {
  datapath::v1::AttachRequest message;
  message.set_device_id("nic-0");
  change(*message.mutable_settings());
  CHECK_THROWS_WITH(fromMessage(message), Catch::StartsWith("cannot set up nic-0: " + setting));
}

}  // namespace

TEST_CASE("every setting goes through a message and back") {
  LiveAttachment live;
  live.attachment.port = {.mac = "02:ab:00:00:00:01"_mac,
                          .vlan = 7,
                          .vlanQos = 3,
                          .vlanProto = VlanProtocol::dot1ad,
                          .spoofCheck = true,
                          .trust = false,
                          .linkState = LinkState::disable,
                          .minTxRate = 5,
                          .maxTxRate = 10,
                          .mtu = 1400,
                          .vlanTrunk = VlanRanges::parse("100-110,200"),
                          .maxRxRate = 20,
                          .burst = 64};
  forEachSetting([](const Setting&, const auto& value) { CHECK(value); }, live.attachment.port);
  datapath::v1::AttachRequest request;
  *request.mutable_settings() = toMessage(live).settings();
  CHECK(fromMessage(request).settings == live.attachment.port);
}

TEST_CASE("an empty message requests nothing, and 0 and off are requests") {
  datapath::v1::AttachRequest message;
  CHECK(fromMessage(message).settings == PortSettings());
  auto& settings = *message.mutable_settings();
  settings.set_vlan(0);
  settings.set_trust(false);
  PortSettings expected;
  expected.vlan = 0;
  expected.trust = false;
  CHECK(fromMessage(message).settings == expected);
}

TEST_CASE("a word or a MAC that can't be read is refused by name, with the device") {
  for (const char* mac :
       {"x", "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g", "02:00:00:00:00:01:02",
        "00:00:00:00:00:00", "01:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"})
    refused(std::string("mac '") + mac + "'", [&](auto& settings) { settings.set_mac(mac); });
  refused("mac 'x': expected a unicast address such as 02:00:00:00:00:01",
          [](auto& settings) { settings.set_mac("x"); });
  refused("mac '01:00:00:00:00:01' is a multicast address; expected a unicast address",
          [](auto& settings) { settings.set_mac("01:00:00:00:00:01"); });
  refused("vlanProto 'x': expected 802.1q or 802.1ad",
          [](auto& settings) { settings.set_vlan_proto("x"); });
  refused("vlanTrunk '0': expected VLANs of 1 to 4094",
          [](auto& settings) { settings.set_vlan_trunk("0"); });
  refused("link_state 'up': expected auto or enable or disable",
          [](auto& settings) { settings.set_link_state("up"); });
}

TEST_CASE("MACs and words in capitals") {
  datapath::v1::AttachRequest message;
  message.mutable_settings()->set_mac("02:AB:00:00:00:01");
  message.mutable_settings()->set_vlan_proto("802.1AD");
  const auto settings = fromMessage(message).settings;
  CHECK(settings.mac == "02:ab:00:00:00:01"_mac);
  CHECK(settings.vlanProto == VlanProtocol::dot1ad);
}

TEST_CASE("the MAC that a netdev is expected to have is one") {
  datapath::v1::CheckRequest message;
  CHECK_FALSE(fromMessage(message).interfaceMac);
  message.set_interface_mac("02:00:00:00:00:01");
  CHECK(fromMessage(message).interfaceMac == "02:00:00:00:00:01"_mac);
  message.set_interface_mac("x");
  CHECK_THROWS_WITH(fromMessage(message), Catch::Contains("interface_mac 'x'"));
}
