// Owner records on disk: written completely or not at all, and damaged files found there.
#include "deviceplugin/datapath/records/owner_record_store.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/port_settings.h"
#include "common/uplink_config.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;

namespace {

std::set<std::string> namesIn(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.insert(entry.path().filename());
  return names;
}

OwnerRecord example(const std::string& device = "nic-0") {
  OwnerRecord record;
  record.bootId = "b-1";
  record.phase = Phase::attached;
  record.netns = {4, 4026532000};
  record.socket = {1, 2, 0640, "label"};
  record.software = {2, 9000, {"eth1"}, "2-3"};
  auto& attachment = record.attachment;
  attachment.deviceId = device;
  attachment.resource = "vdpa.io/nic";
  attachment.owner = {"c0", "net1", "/var/run/netns/x", "fast", "default", "pod", "uid"};
  PortSettings& port = attachment.port;
  port.mac = "02:00:00:00:00:01"_mac;
  port.vlan = 5;
  port.vlanQos = 3;
  port.vlanProto = VlanProtocol::dot1ad;
  port.mtu = 1400;
  port.linkState = LinkState::disable;
  port.spoofCheck = port.trust = true;
  port.minTxRate = 10;
  port.maxTxRate = 20;
  attachment.queuePairs = 2;
  attachment.queueSize = 512;
  attachment.ips = {"10.0.0.1/24"};
  attachment.created = 1700000000;
  attachment.socket = "/dev/vhost-vdpa-1";
  record.device = {BackendKind::kernel,
                   Attach::vhostVdpa,
                   1,
                   2,
                   "0000:65:00.2",
                   "vdpa0",
                   "pci/0000:65:00.2",
                   "vp-vdpa",
                   true,
                   {},  // not stored: only an Attach uses them
                   {},
                   "",
                   ""};
  record.found.vdpaMac = "02:00:00:00:00:09"_mac;
  record.found.vf = {.mac = "02:00:00:00:00:08"_mac,
                     .vlan = 1,
                     .vlanQos = 2,
                     .vlanProto = VlanProtocol::dot1ad,
                     .spoofCheck = true,
                     .trust = {},  // not reported
                     .linkState = LinkState::enable,
                     .minTxRate = 3,
                     .maxTxRate = 4,
                     .mtu = {}};
  record.found.vfChanges = {VfPart::mac, VfPart::vlan, VfPart::linkState};
  record.routes = {{"198.18.0.0/15", "10.0.0.2", 1400, 1360, 7, 100, 253}};
  record.netdev = "eth7";
  return record;
}

}  // namespace

TEST_CASE("a record comes back as it was written") {
  const TemporaryDirectory directory;
  OwnerRecordStore records(directory.path() + "/owners");
  records.write(example(), Durability::disk);
  OwnerRecord other = example("0000:65:00.2");
  other.phase = Phase::detaching;
  records.write(other, Durability::memory);
  const auto loaded = OwnerRecordStore(directory.path() + "/owners").load().records;
  REQUIRE(loaded.size() == 2);
  for (const auto& record : loaded)
    CHECK(toJson(record) == toJson(record.attachment.deviceId == "nic-0" ? example() : other));
  records.remove("nic-0");
  records.remove("nic-0");  // repeating it is allowed
  CHECK(records.load().records.size() == 1);
}

TEST_CASE("settings in a record are as release 0.1.0 reads and writes them") {
  const auto json = toJson(example());
  CHECK(json.at("port") == nlohmann::json::parse(R"({
    "mac": "02:00:00:00:00:01", "vlan": 5, "vlanQos": 3, "vlanProto": "802.1ad", "mtu": 1400,
    "linkState": "disable", "spoofCheck": true, "trust": true, "minTxRate": 10,
    "maxTxRate": 20})"));
  CHECK(json.at("found") == nlohmann::json::parse(R"({
    "vdpaMac": "02:00:00:00:00:09", "vfChanges": ["mac", "vlan", "linkState"],
    "vf": {"mac": "02:00:00:00:00:08", "vlan": 1, "vlanQos": 2, "vlanProto": "802.1ad",
           "linkState": "enable", "spoofCheck": 1, "trust": -1, "minTxRate": 3,
           "maxTxRate": 4}})"));

  OwnerRecord none;
  none.found.vdpaMac = MacAddress();
  CHECK(toJson(none).at("port") == nlohmann::json::parse(R"({
    "mac": "", "vlan": 0, "vlanQos": 0, "vlanProto": "802.1q", "mtu": 1500, "linkState": "auto",
    "spoofCheck": false, "trust": false, "minTxRate": 0, "maxTxRate": 0})"));
  CHECK(toJson(none).at("found").at("vdpaMac") == "");
  CHECK(toJson(none).at("found").at("vf") == nlohmann::json::parse(R"({
    "mac": "", "vlan": 0, "vlanQos": 0, "vlanProto": "802.1q", "linkState": "auto",
    "spoofCheck": -1, "trust": -1, "minTxRate": 0, "maxTxRate": 0})"));
}

TEST_CASE("a kind of uplink that release 0.1.0 does not know raises the version") {
  OwnerRecord record = example();
  CHECK(toJson(record).at("switch") == nlohmann::json::parse(R"({
    "queuePairs": 2, "mtu": 9000, "uplink": "eth1", "cores": "2-3"})"));
  CHECK(toJson(record).at("version") == 1);
  for (const UplinkConfig& uplink :
       {UplinkConfig{.netdev = "eth1", .xdp = true}, {.pci = "0000:03:00.0"}}) {
    record.software.uplink = uplink;
    CHECK(toJson(record).at("version") == 2);
    CHECK(ownerRecordFromJson(toJson(record)).software == record.software);
  }
}

TEST_CASE("every key of a record is needed, and of the right type") {
  const auto good = toJson(example());
  CHECK_NOTHROW(ownerRecordFromJson(good));
  const auto flat = good.flatten();
  for (const auto& path : flat.items()) {
    const nlohmann::json::json_pointer pointer(path.key());
    if (path.key().starts_with("/ips/") || path.key().starts_with("/found/vfChanges/"))
      continue;  // a list may be empty
    INFO(path.key());
    auto broken = good;
    broken[pointer.parent_pointer()].erase(pointer.back());
    CHECK_THROWS(ownerRecordFromJson(broken));
    broken = good;
    broken[pointer] = nlohmann::json::array({nullptr});
    CHECK_THROWS(ownerRecordFromJson(broken));
  }
}

TEST_CASE(
    "a record has the lowest version that can express it, and may have keys of later releases") {
  auto json = toJson(example());
  CHECK(json.at("version") == 1);
  json["later"] = 7;
  json["port"]["later"] = {1, 2};
  CHECK(toJson(ownerRecordFromJson(json)) == toJson(example()));
}

TEST_CASE("what 0.1.0 does not know is in a record only where it is not the default") {
  OwnerRecord record = example();
  PortSettings& port = record.attachment.port;
  port.vlanTrunk = VlanRanges::parse("100-110,200");
  port.maxRxRate = 30;
  port.burst = 64;
  record.policy = {false, 0};
  auto json = toJson(record);
  CHECK(json.at("version") == 2);  // without the trunk the port would be open to other pods
  CHECK(json.at("port").at("vlanTrunk") == "100-110,200");
  CHECK(json.at("port").at("maxRxRate") == 30);
  CHECK(json.at("port").at("burst") == 64);
  CHECK(json.at("switch").at("offloads") == false);
  CHECK(json.at("switch").at("stormLimit") == 0);
  CHECK_FALSE(json.at("found").at("vf").contains("vlanTrunk"));
  const auto read = ownerRecordFromJson(json);
  CHECK(read.attachment.port == port);
  CHECK(read.policy == record.policy);
  CHECK(ownerRecordFromJson(toJson(example())).policy == PortPolicy());
  port.vlanTrunk.reset();
  CHECK(toJson(record).at("version") == 1);
  json["port"]["vlanTrunk"] = "0";
  CHECK_THROWS_WITH(ownerRecordFromJson(json), StartsWith("vlanTrunk '0': expected VLANs"));
}

TEST_CASE("what cannot be used is set aside, what is unfinished is removed") {
  const TemporaryDirectory directory;
  const std::string owners = directory.path() + "/owners";
  OwnerRecordStore records(owners);
  records.write(example(), Durability::memory);
  writeFileAtomically(owners + "/nic-1.json", "{", Durability::memory);
  writeFileAtomically(owners + "/nic-2.json", toJson(example("nic-3")).dump(), Durability::memory);
  auto later = toJson(example("nic-4"));
  later["version"] = 3;
  writeFileAtomically(owners + "/nic-4.json", later.dump(), Durability::memory);
  std::filesystem::copy_file(owners + "/nic-0.json", owners + "/nic-5.json.tmp");

  const std::set<std::string> expected{"nic-0.json", "nic-1.json.bad", "nic-2.json.bad",
                                       "nic-4.json.bad"};
  for (int start = 0; start < 3; ++start) {  // the same at every start
    const auto loaded = records.load();
    REQUIRE(loaded.records.size() == 1);
    CHECK(loaded.records[0].attachment.deviceId == "nic-0");
    REQUIRE(loaded.unreadable.size() == 3);
    CHECK_THAT(loaded.unreadable.at("nic-1"),
               StartsWith(owners + "/nic-1.json.bad cannot be used"));
    CHECK_THAT(loaded.unreadable.at("nic-2"), EndsWith("it is about device nic-3"));
    CHECK_THAT(loaded.unreadable.at("nic-4"),
               EndsWith("it has version 3; this program reads versions up to 2"));
    CHECK(namesIn(owners) == expected);
  }
  records.removeUnreadable("nic-1");
  CHECK(records.load().unreadable.size() == 2);
}

TEST_CASE("what another version set aside is taken up again by one that can read it") {
  const TemporaryDirectory directory;
  const std::string owners = directory.path() + "/owners";
  OwnerRecordStore records(owners);
  writeFileAtomically(owners + "/nic-0.json.bad", toJson(example()).dump(), Durability::memory);
  const auto loaded = records.load();
  CHECK(loaded.unreadable.empty());
  REQUIRE(loaded.records.size() == 1);
  CHECK(toJson(loaded.records[0]) == toJson(example()));
  CHECK(namesIn(owners) == std::set<std::string>{"nic-0.json"});
}

TEST_CASE("of two records of one device the one in force counts") {
  const TemporaryDirectory directory;
  const std::string owners = directory.path() + "/owners";
  OwnerRecordStore records(owners);
  records.write(example(), Durability::memory);
  writeFileAtomically(owners + "/nic-0.json.bad", "{", Durability::memory);
  auto loaded = records.load();
  CHECK(loaded.records.size() == 1);
  CHECK(loaded.unreadable.empty());
  CHECK(namesIn(owners) == std::set<std::string>{"nic-0.json"});

  writeFileAtomically(owners + "/nic-0.json.bad", "{", Durability::memory);
  writeFileAtomically(owners + "/nic-0.json", "[", Durability::memory);
  loaded = records.load();
  CHECK(loaded.records.empty());
  CHECK(loaded.unreadable.size() == 1);
  CHECK(readFile(owners + "/nic-0.json.bad") == "[");
}

TEST_CASE("the clock of the wall says nothing about whether a record is used") {
  const TemporaryDirectory directory;
  OwnerRecordStore records(directory.path() + "/owners");
  for (const int64_t created : {INT64_MIN, int64_t{-1}, int64_t{4102444800}, INT64_MAX}) {
    auto record = example();
    record.attachment.created = created;
    records.write(record, Durability::memory);
    const auto loaded = records.load().records;
    REQUIRE(loaded.size() == 1);
    CHECK(loaded[0].attachment.created == created);
  }
}
