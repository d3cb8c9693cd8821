// The configuration's keys, their types, and the settings that a network requests.
#include "cni/network_config.h"

#include <catch2/catch.hpp>
#include <environment.h>
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cni/device_config.h"
#include "common/port_settings.h"
#include "tests/unit/cni/errors.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::cni;
using nlohmann::json;

namespace {

json base() {
  return {{"cniVersion", "1.1.0"}, {"name", "fast"}, {"type", "vdpa"}, {"deviceID", "nic-0"}};
}

json with(const std::string& pointer, const json& value) {
  json config = base();
  config[json::json_pointer(pointer)] = value;
  return config;
}

// The variables of a call for net1 of c0.
Environment environmentOf(Command command) {
  Environment environment;
  environment.command = command;
  environment.containerId = "c0";
  environment.interface = "net1";
  return environment;
}

NetworkConfig parse(const json& config, Command command = Command::add) {
  return parseNetworkConfig(config.dump(), environmentOf(command));
}

DeviceConfig device(const json& config, std::map<std::string, std::string> args = {}) {
  Environment environment = environmentOf(Command::add);
  environment.args = std::move(args);
  return parseDeviceConfig(parse(config), environment);
}

std::string refusalOf(const json& config, Command command = Command::add) {
  return errorOf([&] {
    const auto network = parse(config, command);
    if (command == Command::add) parseDeviceConfig(network, environmentOf(command));
  });
}

std::string nested(int levels) {
  return std::string(static_cast<size_t>(levels), '[') +
         std::string(static_cast<size_t>(levels), ']');
}

}  // namespace

TEST_CASE("a minimal configuration and its defaults") {
  const auto network = parse(base());
  CHECK(network.version == Version{1, 1, 0});
  CHECK(network.name == "fast");
  CHECK(network.datapathSocket == "/run/vdpa/datapath.sock");
  CHECK(network.ipamType.empty());
  CHECK_FALSE(network.prevResult);
  const auto asked = device(base());
  CHECK(asked.deviceId == "nic-0");
  CHECK(asked.settings == PortSettings());
}

TEST_CASE("every key") {
  json config = base();
  config.update({{"mac", "02:AA:00:00:00:01"},
                 {"vlan", 4094},
                 {"vlanQoS", 7},
                 {"vlanProto", "802.1AD"},
                 {"spoofchk", "ON"},
                 {"trust", "off"},
                 {"link_state", "Enable"},
                 {"min_tx_rate", 5},
                 {"max_tx_rate", 5},
                 {"mtu", 9000},
                 {"vlanTrunk", "200,100-110"},
                 {"max_rx_rate", 6},
                 {"burst", 64},
                 {"ipam", {{"type", "host-local"}}},
                 {"logLevel", "Warn"},
                 {"prevResult", {{"ips", json::array()}}}});
  const auto asked = device(config).settings;
  CHECK(asked.mac == "02:aa:00:00:00:01"_mac);
  CHECK(asked.vlan == 4094u);
  CHECK(asked.vlanQos == 7u);
  CHECK(asked.vlanProto == VlanProtocol::dot1ad);
  CHECK(asked.spoofCheck == true);
  CHECK(asked.trust == false);
  CHECK(asked.linkState == LinkState::enable);
  CHECK(asked.minTxRate == 5u);
  CHECK(asked.maxTxRate == 5u);
  CHECK(asked.mtu == 9000u);
  CHECK(textOf(asked.vlanTrunk) == "100-110,200");
  CHECK(asked.maxRxRate == 6u);
  CHECK(asked.burst == 64u);
  const auto network = parse(config);
  CHECK(network.ipamType == "host-local");
  CHECK(network.logLevel == "warning");
  CHECK(network.prevResult->contains("ips"));
}

TEST_CASE("null is as good as absent, and unknown keys pass") {
  for (const char* key : {"/vlan", "/mac", "/ipam", "/runtimeConfig", "/prevResult", "/unknown"})
    CHECK(refusalOf(with(key, nullptr)) == "no error");
  CHECK(refusalOf(with("/unknown", {{"a", 1}})) == "no error");
}

TEST_CASE("numbers at and beyond their limits") {
  const auto [key, low, high] =
      GENERATE(table<std::string, int64_t, int64_t>({{"vlan", 0, 4094},
                                                     {"mtu", 68, 65535},
                                                     {"min_tx_rate", 0, 1000000},
                                                     {"max_tx_rate", 0, 1000000},
                                                     {"max_rx_rate", 0, 1000000},
                                                     {"burst", 0, 1048576}}));
  const auto config = [key = key](const json& value) {
    json all = with("/" + key, value);
    if (key == "burst") all["max_rx_rate"] = 1;
    return all;
  };
  for (const int64_t good : {low, high}) CHECK(refusalOf(config(good)) == "no error");
  for (const json& bad : {json(low - 1), json(high + 1), json(INT64_MIN), json(UINT64_MAX),
                          json(1.5), json("1"), json(true)})
    CHECK(refusalOf(config(bad)) ==
          fmt::format("7: {}: expected a whole number from {} to {}, found {}", key, low, high,
                      bad.is_string() ? "'1'" : bad.dump()));
}

TEST_CASE("a trunk's VLANs") {
  CHECK(refusalOf(with("/vlanTrunk", "1-4094")) == "no error");
  CHECK(device(with("/vlanTrunk", "")).settings == PortSettings());
  CHECK(
      refusalOf(with("/vlanTrunk", "0-5")) ==
      "7: vlanTrunk '0-5': expected VLANs of 1 to 4094 such as 100-110,200, in at most 1000 bytes");
  CHECK(refusalOf(with("/vlanTrunk", 7)) == "7: vlanTrunk: expected a string, found 7");
  CHECK(refusalOf(with("/vlanTrunk", std::string(100000, '1'))).size() < 200);
  json config = with("/vlanTrunk", "100-110");
  config["vlan"] = 100;
  CHECK_THAT(refusalOf(config), Catch::StartsWith("7: vlan 100 is also in vlanTrunk 100-110"));
  CHECK_THAT(refusalOf(with("/burst", 64)), Catch::StartsWith("7: burst 64 needs a max_tx_rate"));
}

TEST_CASE("a wrong type names the whole path and never prints the value") {
  CHECK(refusalOf(with("/runtimeConfig/mac", json::array({1}))) ==
        "7: runtimeConfig.mac: expected a string, found a list");
  CHECK(refusalOf(with("/args/cni/mac", json::object())) ==
        "7: args.cni.mac: expected a string, found an object");
  CHECK(refusalOf(with("/args/cni", 7)) == "7: args.cni: expected an object, found 7");
  CHECK(refusalOf(with("/ipam/type", "vdpa")) ==
        "7: ipam.type 'vdpa' is this plugin; expected an IPAM plugin");
  CHECK(refusalOf(with("/ipam/type", true)) == "7: ipam.type: expected a string, found true");
  CHECK(refusalOf(with("/vlan", std::string(100000, 'x'))).size() < 200);
  CHECK(refusalOf(with("/cniVersion", std::string(100000, 'x'))).size() < 300);
}

TEST_CASE("what is not a configuration") {
  const auto error = [](const std::string& text) {
    return errorOf([&] { parseNetworkConfig(text, environmentOf(Command::add)); });
  };
  CHECK(error("") == "6: the network configuration is empty");
  CHECK(error("{") == "6: the network configuration is not JSON");
  CHECK(error("[]") == "6: the network configuration is not a JSON object");
  CHECK(error("{\"a\":" + nested(64) + "}").find("6: ") == 0);
  CHECK(error("{\"a\":" + nested(300000) + "}") ==
        "6: the network configuration is nested deeper than 64 levels");
  CHECK(error("{\"cniVersion\":" + nested(63) + "}").find("7: cniVersion") == 0);
}

TEST_CASE("commands need versions") {
  const auto error = [](const char* version, Command command) {
    json config = with("/cniVersion", version);
    config["cni.dev/valid-attachments"] = json::array();
    return refusalOf(config, command).substr(0, 2);
  };
  CHECK(error("0.3.0", Command::add) == "no");
  CHECK(error("0.3.1", Command::check) == "1:");
  CHECK(error("0.4.0", Command::check) == "no");
  for (const Command command : {Command::gc, Command::status}) {
    CHECK(error("1.0.0", command) == "1:");
    CHECK(error("1.1.0", command) == "no");
  }
  json absent = base();
  absent.erase("cniVersion");
  CHECK(refusalOf(absent).find("1: cniVersion 0.1.0 is not supported (a missing") == 0);
  CHECK(refusalOf(with("/cniVersion", "1.1.00")).substr(0, 2) == "1:");
}

TEST_CASE("the version to answer in") {
  for (const auto& version : kSupportedVersions)
    CHECK(answerVersion(json{{"cniVersion", version}}.dump()) == version);
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("nonsense"), nested(300000),
        std::string(R"({"cniVersion": 7})"), std::string(R"({"cniVersion": "9.0.0"})")})
    CHECK(answerVersion(text) == "1.1.0");
}

TEST_CASE("the order of the MAC's sources") {
  json config = with("/mac", "02:00:00:00:00:04");
  CHECK(device(config).settings.mac == "02:00:00:00:00:04"_mac);
  config["args"] = {{"cni", {{"mac", "02:00:00:00:00:03"}}}};
  CHECK(device(config).settings.mac == "02:00:00:00:00:03"_mac);
  const std::map<std::string, std::string> args{{"MAC", "02:00:00:00:00:02"}};
  CHECK(device(config, args).settings.mac == "02:00:00:00:00:02"_mac);
  config["runtimeConfig"] = {{"mac", "02:00:00:00:00:01"}};
  CHECK(device(config, args).settings.mac == "02:00:00:00:00:01"_mac);
}

TEST_CASE("MACs that are none") {
  for (const char* bad : {"02:00:00:00:00", "02:00:00:00:00:0g", "02-00-00-00-00-01",
                          "0200:00:00:00:01:", "01:00:00:00:00:00", "00:00:00:00:00:00",
                          "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01 "})
    CHECK(refusalOf(with("/mac", bad)).find("7: mac '") == 0);
}

TEST_CASE("places of the device ID") {
  json config = base();
  config.erase("deviceID");
  CHECK(refusalOf(config).find("7: no device ID") == 0);
  for (const char* place :
       {"/deviceID", "/pciBusID", "/runtimeConfig/deviceID", "/runtimeConfig/pciBusID"}) {
    json one = config;
    one[json::json_pointer(place)] = "nic-7";
    CHECK(device(one).deviceId == "nic-7");
  }
  CHECK(refusalOf(with("/runtimeConfig/pciBusID", "nic-1")) ==
        "7: deviceID 'nic-0' and runtimeConfig.pciBusID 'nic-1' differ");
}

TEST_CASE("a name that a node could not tell of all its attachments") {
  CHECK(parse(with("/name", std::string(253, 'n'))).name.size() == 253);
  CHECK(refusalOf(with("/name", std::string(254, 'n'))).find("at most 253 bytes") !=
        std::string::npos);
}

TEST_CASE("DEL goes on without what it can do without") {
  for (const char* key :
       {"/name", "/logLevel", "/logFile", "/ipam/type", "/prevResult", "/datapathSocket"}) {
    const auto network = parse(with(key, 7), Command::del);
    CHECK(network.ignored.find(": expected") != std::string::npos);
    CHECK(network.datapathSocket == "/run/vdpa/datapath.sock");
  }
  json config = with("/logLevel", "loud");
  config["ipam"] = {{"type", "host-local"}};
  CHECK(parse(config, Command::del).ipamType == "host-local");
  CHECK(refusalOf(with("/cniVersion", "0.1.0"), Command::del).substr(0, 2) == "1:");
}

TEST_CASE("DEL keeps every key that is right") {
  json config = with("/datapathSocket", "/tmp/elsewhere.sock");
  config["ipam"] = {{"type", "host-local"}};
  const auto network = parse(config, Command::del);
  CHECK(network.datapathSocket == "/run/vdpa/datapath.sock");
  CHECK(network.ipamType == "host-local");
  CHECK(network.ignored.find("datapathSocket '/tmp/elsewhere.sock': expected") == 0);
}

TEST_CASE("a text with a zero byte, after which the system would not read on") {
  const std::string zero(1, '\0');
  CHECK(refusalOf(with("/logFile", "/var/log/.." + zero + "/etc/x")) ==
        "7: logFile: expected a string without zero bytes");
}

TEST_CASE("a device-info file is this attachment's own") {
  const std::string folder = "/var/run/k8s.cni.cncf.io/devinfo/cni/";
  const auto refusal = [](const std::string& path) {
    return refusalOf(with("/runtimeConfig/CNIDeviceInfoFile", path));
  };
  CHECK(refusal(folder + "shop-fast-c0_net1") == "no error");
  CHECK(refusal("") == "no error");
  for (const std::string& other :
       {folder + "shop-fast-c1_net1", folder + "shop-fast-c0_net2", folder + "c0_net1",
        folder + "shop-fast-c0_net1.tmp", folder + "shop/fast-c0_net1",
        folder + "../dp/shop-c0_net1", std::string("/run/vdpa/x-c0_net1"), std::string("x-c0_net1"),
        folder})
    CHECK(refusal(other).find("whose name ends in '-c0_net1'") != std::string::npos);
}

TEST_CASE("valid attachments") {
  const auto attachments = [](const json& list) {
    json config = base();
    config["cni.dev/valid-attachments"] = list;
    return config;
  };
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  CHECK(parse(attachments(nullptr), Command::gc).validAttachments.empty());
  CHECK(
      parse(attachments({{{"containerID", "c"}, {"ifname", "e"}}}), Command::gc).validAttachments ==
      Pairs{{"c", "e"}});
  CHECK(refusalOf(base(), Command::gc).find("7: GC needs cni.dev/valid-attachments") == 0);
  CHECK(refusalOf(attachments({{{"containerID", "c"}}}), Command::gc) ==
        "7: cni.dev/valid-attachments[0].ifname is missing");
}
