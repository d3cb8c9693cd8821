// The owner of a MAC while interfaces are being attached, and afterwards.
#include "deviceplugin/datapath/attachments/mac_registry.h"

#include <catch2/catch.hpp>

#include <string>

#include "common/mac_address.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/mac_literal.h"

using Catch::Matchers::Contains;
using namespace vdpa;
using namespace vdpa::datapath;

namespace {

const MacAddress kMac = "02:00:00:00:00:01"_mac;

Owner ownerOf(const std::string& container, const std::string& pod) {
  Owner owner;
  owner.containerId = container;
  owner.interface = "net1";
  owner.podNamespace = "default";
  owner.podName = pod;
  return owner;
}

Attachment attachmentOf(const Owner& owner, const std::string& id, const MacAddress& mac) {
  Attachment attachment;
  attachment.deviceId = id;
  attachment.resource = "vdpa.io/nic";
  attachment.owner = owner;
  attachment.port.mac = mac;
  return attachment;
}

const Owner kFirst = ownerOf("c0", "pod"), kSecond = ownerOf("c1", "another");

}  // namespace

TEST_CASE("of two Attaches that run and ask for the same MAC one gets it") {
  const DeviceTable table;
  MacRegistry registry(table);
  MacRegistry::Claim second(registry, kSecond);
  const auto later = attachmentOf(kSecond, "nic-1", second.choose(kMac));
  {
    MacRegistry::Claim first(registry, kFirst);
    first.hold(attachmentOf(kFirst, "nic-0", first.choose(kMac)));
    CHECK_THROWS_WITH(second.hold(later), Contains("by default/pod (container c0"));
  }
  CHECK_NOTHROW(second.hold(later));
}

TEST_CASE("a MAC is its attachment's in its resource and VLAN, until that is detached") {
  DeviceTable table;
  table.setOffers({{"nic-0", {}}, {"nic-1", {}}});
  MacRegistry registry(table);
  OwnerRecord record;
  record.attachment = attachmentOf(kFirst, "nic-0", kMac);
  const auto lease = table.lease("nic-0", DeviceTable::Clock::now());
  table.setAttachment(*lease, record, nullptr);
  MacRegistry::Claim claim(registry, kSecond);
  auto wanted = attachmentOf(kSecond, "nic-1", claim.choose(kMac));
  CHECK_THROWS_WITH(claim.hold(wanted), Contains("wait until that pod is gone"));
  wanted.port.vlan = 7;
  CHECK_NOTHROW(claim.hold(wanted));
  wanted.port.vlan = 0;
  SECTION("and in each VLAN of a trunk, which has untagged frames only with a native one") {
    wanted.port.vlanTrunk = VlanRanges::parse("100-110");
    CHECK_NOTHROW(claim.hold(wanted));
    record.attachment.port.vlan = 105;
    table.setAttachment(*lease, record, nullptr);
    CHECK_THROWS_WITH(claim.hold(wanted), Contains("is already used in VLAN 105 of vdpa.io/nic"));
    record.attachment.port.vlan = 7;
    record.attachment.port.vlanTrunk = VlanRanges::parse("110-120");
    table.setAttachment(*lease, record, nullptr);
    CHECK_THROWS_WITH(claim.hold(wanted), Contains("is already used in VLAN 110 of vdpa.io/nic"));
    wanted.port.vlanTrunk = VlanRanges::parse("100-109");
    CHECK_NOTHROW(claim.hold(wanted));
    wanted.port.vlan = 7;
    CHECK_THROWS_WITH(claim.hold(wanted), Contains("is already used in VLAN 7 of vdpa.io/nic"));
    wanted.port = attachmentOf(kSecond, "nic-1", kMac).port;
    record.attachment.port = wanted.port;
    table.setAttachment(*lease, record, nullptr);
  }
  table.clearAttachment(*lease);
  CHECK_NOTHROW(claim.hold(wanted));
}

TEST_CASE("a default MAC is one that neither an attachment nor an Attach that runs has") {
  DeviceTable table;
  table.setOffers({{"nic-0", {}}});
  MacRegistry registry(table);
  MacAddress first;
  {
    MacRegistry::Claim claim(registry, kFirst);
    first = claim.choose({});
    const Owner again = ownerOf("c2", "pod");  // the same pod's: its first choice is the same
    MacRegistry::Claim other(registry, again);
    CHECK(other.choose({}) != first);
  }
  OwnerRecord record;
  record.attachment = attachmentOf(kSecond, "nic-0", first);
  const auto lease = table.lease("nic-0", DeviceTable::Clock::now());
  table.setAttachment(*lease, record, nullptr);
  MacRegistry::Claim again(registry, kFirst);
  CHECK(again.choose({}) != first);
}
