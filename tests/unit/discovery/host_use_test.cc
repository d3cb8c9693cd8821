// The netdevs that the host needs, however they are stacked.
#include "deviceplugin/discovery/host_use.h"

#include <catch2/catch.hpp>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <thread>

using namespace vdpa;
using namespace vdpa::plugin;
using Link = NetworkConfiguration::Link;
using Uses = std::map<std::string, std::string>;

TEST_CASE("a default route, an address, and neither") {
  NetworkConfiguration network;
  network.links = {
      {1, "lo", 0, 0, ""}, {2, "eth0", 0, 0, ""}, {3, "eth1", 0, 0, ""}, {4, "eth2", 0, 0, ""}};
  network.addresses = {
      {2, "192.0.2.1/24", false}, {3, "198.51.100.1/24", false}, {4, "fe80::1/64", true}};
  network.defaultRoutes = {2};
  CHECK(findHostUse(network) ==
        Uses{{"eth0", "the default route"}, {"eth1", "the address 198.51.100.1/24"}});
}

TEST_CASE("a VLAN on a bond of two NICs, in a bridge") {
  NetworkConfiguration network;
  network.links = {{2, "eth0", 5, 0, ""},        {3, "eth1", 5, 0, ""},
                   {4, "eth2", 0, 0, ""},        {5, "bond0", 0, 0, "bond"},
                   {6, "bond0.7", 7, 5, "vlan"}, {7, "br0", 0, 0, "bridge"}};
  network.addresses = {{7, "192.0.2.1/24", false}};
  const auto uses = findHostUse(network);
  CHECK(uses.at("eth0") == "it is below bridge br0, which has the address 192.0.2.1/24");
  CHECK(uses.contains("eth1"));
  CHECK(uses.contains("bond0"));
  CHECK(uses.contains("bond0.7"));
  CHECK_FALSE(uses.contains("eth2"));
}

TEST_CASE("a macvlan, and links that go round in a circle") {
  NetworkConfiguration network;
  network.links = {
      {2, "eth0", 0, 0, ""}, {3, "mac0", 0, 2, "macvlan"}, {4, "a", 5, 0, ""}, {5, "b", 4, 4, ""}};
  network.addresses = {{3, "192.0.2.1/24", false}, {5, "192.0.2.2/24", false}};
  const auto uses = findHostUse(network);
  CHECK(uses.at("eth0") == "it is below macvlan mac0, which has the address 192.0.2.1/24");
  CHECK(uses.contains("a"));
}

TEST_CASE("the configuration is whole while links come and go") {
  std::string missing = "the network namespace";
  // It ends with this thread and the thread it starts.
  std::thread([&] {
    // NOLINTBEGIN(bugprone-command-processor): the words are the test's own
    if (::unshare(CLONE_NEWNET) < 0 ||
        std::system(
            "for n in $(seq 50); do echo link add keep$n type veth peer name peer$n; done | "
            "ip -b - && ip address add 192.0.2.1/24 dev keep50"))
      return;
    missing.clear();
    std::atomic<bool> stop = false, failed = false;
    std::thread churn([&] {
      while (!stop)
        if (std::system("ip link add come type veth && ip link del come")) failed = true;
    });
    // NOLINTEND(bugprone-command-processor)
    for (int i = 0; i < 300 && missing.empty(); ++i) {
      try {
        if (!findHostUse(dumpNetwork()).contains("keep50")) missing = "keep50";
      } catch (const std::exception& error) {
        missing = error.what();
      }
    }
    stop = true;
    churn.join();
    CHECK_FALSE(failed);
  }).join();
  CHECK(missing == "");
}

TEST_CASE("the machine's own configuration can be read") {
  const auto network = dumpNetwork();
  bool loopback = false;
  for (const auto& link : network.links) loopback = loopback || link.name == "lo";
  CHECK(loopback);
}
