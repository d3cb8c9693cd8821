#include "common/mac_address.h"

#include <catch2/catch.hpp>

#include <string>

using vdpa::MacAddress;

TEST_CASE("a MAC address is read and written") {
  const auto address = MacAddress::parse("02:00:aB:CD:00:01");
  REQUIRE(address);
  CHECK(address->bytes() == MacAddress::Bytes{2, 0, 0xab, 0xcd, 0, 1});
  CHECK(address->text() == "02:00:ab:cd:00:01");
  CHECK(MacAddress::parseOrThrow("02:00:ab:cd:00:01") == *address);
}

TEST_CASE("what is no MAC address") {
  const std::string text =
      GENERATE("", "02:00:00:00:00", "02:00:00:00:00:01:", "02:00:00:00:00:1", "2:00:00:00:00:011",
               "02-00-00-00-00-01", "02:00:00:00:00:0g", "0x:00:00:00:00:01", "+2:00:00:00:00:01",
               "-2:00:00:00:00:01", " 2:00:00:00:00:01", "020:0:00:00:00:01", "02:00:00:00:00.01");
  CHECK_FALSE(MacAddress::parse(text));
  CHECK_THROWS_WITH(MacAddress::parseOrThrow(text),
                    "MAC address '" + text + "': expected six bytes such as 02:00:00:00:00:01");
}

TEST_CASE("whom a MAC address is for") {
  CHECK(MacAddress().isZero());
  CHECK_FALSE(MacAddress().isUnicast());
  CHECK(MacAddress::parseOrThrow("02:00:00:00:00:01").isUnicast());
  CHECK(MacAddress::parseOrThrow("ff:ff:ff:ff:ff:ff").isMulticast());
  CHECK_FALSE(MacAddress::parseOrThrow("01:00:5e:00:00:01").isUnicast());
}
