// The frames that announce an address to neighbours, and addresses with prefix length.
#include "deviceplugin/datapath/netlink/gratuitous_arp.h"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

#include "common/mac_address.h"
#include "deviceplugin/datapath/netlink/ip_prefix.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

constexpr MacAddress kMac({0x52, 0x54, 0, 0, 3, 1});

std::string hex(const std::vector<uint8_t>& bytes) {
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

}  // namespace

TEST_CASE("an IPv4 address is announced by ARP") {
  CHECK(hex(gratuitousArp(kMac, "10.9.0.2/24")) ==
        "ffffffffffff"
        "525400000301"
        "0806"
        "0001080006040001"
        "525400000301"
        "0a090002"
        "000000000000"
        "0a090002");
}

TEST_CASE("an IPv6 address is announced by a neighbour advertisement") {
  const auto frame = gratuitousArp(kMac, "fd00:9::2/64");
  const std::string address = "fd000009000000000000000000000002";
  CHECK(hex(frame).substr(0, 28) == "33330000000152540000030186dd");
  CHECK(hex(frame).substr(28, 16) == "6000000000203aff");
  CHECK(hex(frame).substr(44, 64) == address + "ff020000000000000000000000000001");
  CHECK(hex(frame).substr(108, 4) == "8800");
  CHECK(hex(frame).substr(116) == "20000000" + address + "0201525400000301");
  // The checksum over pseudo-header and message, itself included, is all ones.
  uint32_t sum = 32 + 58;
  for (size_t i = 22; i < frame.size(); i += 2)
    sum += static_cast<uint32_t>(frame[i] << 8 | frame[i + 1]);
  CHECK((sum & 0xffff) + (sum >> 16) == 0xffff);
}

TEST_CASE("addresses with a prefix length") {
  CHECK(parsePrefix("10.9.0.2/24").text() == "10.9.0.2/24");
  CHECK(parsePrefix("10.9.0.2").text() == "10.9.0.2/32");
  CHECK(parsePrefix("FD00:9:0:0::2/64").text() == "fd00:9::2/64");
  CHECK(parsePrefix("10.9.255.2/20").network().text() == "10.9.240.0/20");
  CHECK(parsePrefix("10.9.255.2/0").network().text() == "0.0.0.0/0");
  CHECK(parsePrefix("10.9.255.2/32").network().text() == "10.9.255.2/32");
  CHECK(parsePrefix("fd00:9:ffff::2/33").network().text() == "fd00:9:8000::/33");
  for (const char* bad : {"", "10.9.0/24", "10.9.0.2/33", "10.9.0.2/", "10.9.0.2/x", "fd00::/129"})
    CHECK_THROWS_AS(parsePrefix(bad), std::system_error);
}
