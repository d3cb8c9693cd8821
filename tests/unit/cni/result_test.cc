// A result in each version, and CHECK's comparison with one.
#include "cni/result.h"

#include <catch2/catch.hpp>
#include <environment.h>
#include <network_config.h>

#include <string>
#include <vector>

#include "tests/unit/cni/errors.h"

using namespace vdpa::cni;
using nlohmann::json;

namespace {

const char* const kMac = "02:00:00:00:00:01";

Environment environment() {
  Environment values;
  values.interface = "net1";
  values.netns = "/run/netns/a";
  return values;
}

vdpa::datapath::v1::Attachment attachment(const std::string& device = "nic-0") {
  vdpa::datapath::v1::Attachment values;
  values.set_device_id(device);
  values.set_socket("/run/vdpa/nic-0/vhost.sock");
  values.mutable_settings()->set_mac(kMac);
  values.mutable_settings()->set_mtu(1500);
  return values;
}

NetworkConfig network(const std::string& version, const json& prevResult = nullptr) {
  Environment environment;
  environment.command = Command::add;
  return parseNetworkConfig(
      json{{"cniVersion", version}, {"name", "fast"}, {"prevResult", prevResult}}.dump(),
      environment);
}

const json kAddresses = {
    {"ips",
     {{{"version", "4"}, {"address", "192.0.2.2/24"}, {"gateway", "192.0.2.1"}},
      {{"address", "2001:db8::2/64"}}}},
    {"routes", {{{"dst", "0.0.0.0/0"}}}},
    {"dns", {{"nameservers", {"192.0.2.53"}}}}};

json result(const std::string& version, const json& prevResult = nullptr,
            const json& ipam = nullptr, const std::string& device = "nic-0") {
  return makeResult(network(version, prevResult), environment(), attachment(device), ipam);
}

std::string addressError(const json& ipam) {
  return errorOf([&] { addressesOf(ipam, "p"); });
}

}  // namespace

TEST_CASE("the interface in each version") {
  json expected{{"name", "net1"}, {"mac", kMac}, {"sandbox", "/run/netns/a"}};
  for (const char* version : {"0.3.0", "0.3.1", "0.4.0", "1.0.0"})
    CHECK(result(version) == json{{"cniVersion", version}, {"interfaces", {expected}}});
  expected.update({{"mtu", 1500}, {"socketPath", "/run/vdpa/nic-0/vhost.sock"}});
  CHECK(result("1.1.0") == json{{"cniVersion", "1.1.0"}, {"interfaces", {expected}}});
}

TEST_CASE("PCI addresses, and what only looks like one") {
  const auto pciId = [](const char* device) {
    return result("1.1.0", nullptr, nullptr, device)["interfaces"][0].value("pciID", "");
  };
  CHECK(pciId("0000:3b:02.1") == "0000:3b:02.1");
  CHECK(pciId("3b:02.1").empty());
  CHECK(pciId("0000:3b:02.1x").empty());
}

TEST_CASE("addresses in each version") {
  for (const char* version : {"0.3.0", "0.3.1", "0.4.0"}) {
    const json ips = result(version, nullptr, kAddresses)["ips"];
    CHECK(ips[0] == json{{"version", "4"},
                         {"address", "192.0.2.2/24"},
                         {"gateway", "192.0.2.1"},
                         {"interface", 0}});
    CHECK(ips[1] == json{{"version", "6"}, {"address", "2001:db8::2/64"}, {"interface", 0}});
  }
  for (const char* version : {"1.0.0", "1.1.0"}) {
    const json whole = result(version, nullptr, kAddresses);
    CHECK(whole["ips"][0] ==
          json{{"address", "192.0.2.2/24"}, {"gateway", "192.0.2.1"}, {"interface", 0}});
    CHECK(whole["routes"] == kAddresses["routes"]);
    CHECK(whole["dns"] == kAddresses["dns"]);
  }
}

TEST_CASE("a chain's result is added to") {
  const json before{{"interfaces", {{{"name", "br0"}}}},
                    {"ips", {{{"address", "203.0.113.1/24"}, {"interface", 0}}}},
                    {"routes", {{{"dst", "198.51.100.0/24"}}}},
                    {"dns", {{"domain", "example"}}}};
  const json whole = result("1.0.0", before, kAddresses);
  CHECK(whole["interfaces"].size() == 2);
  CHECK(whole["interfaces"][0] == before["interfaces"][0]);
  CHECK(whole["ips"][0] == before["ips"][0]);
  CHECK(whole["ips"][1]["interface"] == 1);
  CHECK(whole["routes"].size() == 2);
  CHECK(result("1.0.0", before)["dns"] == before["dns"]);
  CHECK(errorOf([] {
          result("1.0.0", {{"interfaces", 7}});
        }) == "7: prevResult.interfaces: expected a list, found 7");
}

TEST_CASE("a route without a gateway takes that of its own family") {
  const json answer{{"ips",
                     {{{"address", "192.0.2.2/24"}, {"gateway", "192.0.2.1"}},
                      {{"address", "2001:db8::2/64"}, {"gateway", "2001:db8::1"}}}},
                    {"routes", {{{"dst", "::/0"}}, {{"dst", "0.0.0.0/0"}}}}};
  const auto routes = routesOf(answer, "p");
  REQUIRE(routes.size() == 2);
  CHECK(routes[0].gateway() == "2001:db8::1");
  CHECK(routes[1].gateway() == "192.0.2.1");
}

TEST_CASE("addresses of an IPAM answer") {
  CHECK(addressesOf(kAddresses, "p") == std::vector<std::string>{"192.0.2.2/24", "2001:db8::2/64"});
  CHECK(addressError(nullptr) == "102: IPAM plugin 'p' returned no address");
  CHECK(addressError({{"ips", json::array()}}) == "102: IPAM plugin 'p' returned no address");
  CHECK(addressError({{"ips", {7}}}) ==
        "102: IPAM plugin 'p': ips[0]: expected an object, found 7");
  for (const char* bad : {"192.0.2.1", "192.0.2.1/", "192.0.2.1/33", "192.0.2.1/-1",
                          "192.0.2.1/24x", "192.0.2/24", "2001:db8::/129", "/24", ""})
    CHECK(addressError({{"ips", {{{"address", bad}}}}}).find("which is not an address") !=
          std::string::npos);
}

TEST_CASE("more addresses and routes than an attachment can have") {
  json many{{"ips", json::array()}, {"routes", json::array()}};
  for (int i = 1; i <= 64; ++i) {
    many["ips"].push_back({{"address", "192.0.2." + std::to_string(i) + "/24"}});
    many["routes"].push_back({{"dst", "198.51.100." + std::to_string(i) + "/32"}});
  }
  CHECK(addressesOf(many, "p").size() == 64);
  CHECK(routesOf(many, "p").size() == 64);
  many["ips"].push_back(many["ips"][0]);
  many["routes"].push_back(many["routes"][0]);
  CHECK(addressError(many) ==
        "102: IPAM plugin 'p' returned 65 addresses; at most 64 are possible");
  CHECK(errorOf([&] { routesOf(many, "p"); }) ==
        "102: IPAM plugin 'p' returned 65 routes; at most 64 are possible");
}

TEST_CASE("what CHECK finds in prevResult") {
  const auto compare = [](const json& prevResult) {
    return compareResult(prevResult, environment(), attachment());
  };
  const json whole = result("1.1.0", nullptr, kAddresses);
  CHECK(compare(whole).differences.empty());
  CHECK(compare(whole).reported.ips == std::vector<std::string>{"192.0.2.2/24", "2001:db8::2/64"});

  const auto changed = [&](const char* key, const json& value) {
    json copy = whole;
    copy["interfaces"][0][key] = value;
    const auto differences = compare(copy).differences;
    return differences.empty() ? std::string() : differences.at(0);
  };
  CHECK(changed("name", "net2") == "prevResult has no interface net1");
  CHECK(changed("mac", "02:00:00:00:00:02") ==
        "mac is 02:00:00:00:00:01; prevResult says '02:00:00:00:00:02'");
  CHECK(changed("mtu", 1400) == "mtu is 1500; prevResult says '1400'");
  CHECK(changed("socketPath", "/x") ==
        "socketPath is /run/vdpa/nic-0/vhost.sock; prevResult says '/x'");

  json chained = whole;
  chained["interfaces"].push_back({{"name", "net1"}, {"mac", "02:00:00:00:00:09"}});
  chained["ips"].push_back({{"address", "203.0.113.1/24"}, {"interface", 1}});
  CHECK(compare(chained).differences.empty());
  CHECK(compare(chained).reported.ips.size() == 2);
  CHECK(errorOf([&] {
          compare({{"interfaces", 7}});
        }) == "7: prevResult.interfaces: expected a list, found 7");
}
