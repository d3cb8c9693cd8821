// Addresses and routes in a network namespace of the test's own.
#include "deviceplugin/datapath/netlink/rtnetlink.h"

#include <catch2/catch.hpp>
#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

constexpr unsigned kLoopback = 1;

// In a namespace that ends with the thread it runs on.
void inNewNamespace(const std::function<void()>& work) {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      checked(::unshare(CLONE_NEWNET), "cannot make a network namespace");
      Rtnetlink().setUp(kLoopback, true);
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

TEST_CASE("rtnetlink: a list of addresses is whole while others come and go") {
  size_t most = 0, least = SIZE_MAX;
  std::exception_ptr failure;
  inNewNamespace([&] {
    Rtnetlink rtnetlink;
    constexpr size_t kAddresses = 2000;  // several datagrams: the list can change between two
    for (size_t i = 0; i < kAddresses; ++i)
      rtnetlink.addAddress(kLoopback, fmt::format("10.{}.{}.1/32", i / 250, i % 250));
    // Changes, of which each spoils one attempt at most: fewer of them than attempts for each list.
    std::atomic<int> changes = 0;
    std::atomic<bool> stop = false;
    std::thread churn([&, other = Rtnetlink()]() mutable {
      for (bool there = false; !stop;) {
        if (changes <= 0) {
          std::this_thread::yield();
          continue;
        }
        if (there)
          other.removeAddress(kLoopback, "192.0.2.1/32");
        else
          other.addAddress(kLoopback, "192.0.2.1/32");
        there = !there;
        --changes;
      }
    });
    try {
      for (int i = 0; i < 100; ++i) {
        changes = 4;
        auto found = rtnetlink.addresses(kLoopback);
        std::erase_if(found,
                      [](const std::string& address) { return !address.starts_with("10."); });
        least = std::min(least, found.size());
        most = std::max(most, found.size());
      }
    } catch (...) {
      failure = std::current_exception();
    }
    stop = true;
    churn.join();
    if (failure) std::rethrow_exception(failure);
  });
  CHECK(least == 2000);
  CHECK(most == 2000);
}

TEST_CASE("rtnetlink: what the kernel refuses is said in its words") {
  std::string message;
  inNewNamespace([&] {
    Rtnetlink rtnetlink;
    try {
      PodRoute route;
      route.destination = "10.9.0.0/16";
      route.gateway = "192.0.2.1";
      rtnetlink.addRoute(kLoopback, route);
    } catch (const std::exception& error) {
      message = error.what();
    }
  });
  CHECK(
      message ==
      "cannot add the route to 10.9.0.0/16 via 192.0.2.1: Nexthop has invalid gateway: Network is "
      "unreachable");
}

TEST_CASE("rtnetlink: addresses and routes there, twice, and gone") {
  inNewNamespace([] {
    Rtnetlink rtnetlink;
    PodRoute route;
    route.destination = "10.9.0.0/16";
    route.mtu = 1400;
    for (int i = 0; i < 2; ++i) {
      rtnetlink.addAddress(kLoopback, "fd00::2/64");
      CHECK(rtnetlink.addRoute(kLoopback, route));
    }
    const auto found = rtnetlink.addresses(kLoopback);
    CHECK(std::find(found.begin(), found.end(), "fd00::2/64") != found.end());
    CHECK(rtnetlink.hasRoute(kLoopback, route));
    for (int i = 0; i < 2; ++i) {
      rtnetlink.removeAddress(kLoopback, "fd00::2/64");
      rtnetlink.removeRoute(kLoopback, route);
    }
    CHECK_FALSE(rtnetlink.hasRoute(kLoopback, route));
    CHECK_FALSE(rtnetlink.find("no-such-netdev"));
    CHECK(rtnetlink.find("lo")->up);
  });
}
