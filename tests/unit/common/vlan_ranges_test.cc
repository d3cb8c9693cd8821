// Sets of VLANs as texts.
#include "common/vlan_ranges.h"

#include <catch2/catch.hpp>

#include <string>

using namespace vdpa;

namespace {

std::string textOf(const std::string& text) {
  const auto vlans = VlanRanges::parse(text);
  return vlans ? vlans->text() : "refused";
}

}  // namespace

TEST_CASE("the same VLANs have the same text") {
  CHECK(textOf("200,100-110") == "100-110,200");
  CHECK(textOf("1-4094") == "1-4094");
  CHECK(textOf("3,1,2") == "1-3");
  CHECK(textOf("5-9,1-6,7") == "1-9");
  CHECK(textOf("1-10,2-3") == "1-10");
  CHECK(textOf("7-7,0009") == "7,9");
  CHECK(VlanRanges::parse("3,1-2") == VlanRanges::parse("1-3"));
  CHECK(VlanRanges::parse("1-3") != VlanRanges::parse("1-2"));
  CHECK(VlanRanges().text().empty());
}

TEST_CASE("what are no VLANs is refused") {
  for (const char* text : {"", "0", "0-5", "4095", "4000-4095", "5-4", "1,", ",1", "1--2", "-1",
                           "+1", "1 ,2", "x", "1-2-3", "10000", "0x10", "1;2"}) {
    INFO(text);
    CHECK(textOf(text) == "refused");
  }
}

TEST_CASE("a text may have 1000 bytes") {
  std::string text = "100";
  while (text.size() < VlanRanges::kMaxText) text += ",100";
  REQUIRE(text.size() > VlanRanges::kMaxText);
  CHECK(textOf(text) == "refused");
  text.resize(text.size() - 4);
  CHECK(textOf(text) == "100");
}

TEST_CASE("the set has exactly the VLANs of the text") {
  const auto vlans = *VlanRanges::parse("1,100-110,4094");
  const auto set = vlans.set();
  CHECK(set.size() == 4096);
  CHECK(set.count() == 13);
  for (unsigned vlan = 0; vlan < 4096; ++vlan) {
    const bool expected = vlan == 1 || (vlan >= 100 && vlan <= 110) || vlan == 4094;
    if (set.test(vlan) != expected || vlans.contains(vlan) != expected) FAIL(vlan);
  }
  CHECK(VlanRanges().set().none());
  CHECK(VlanRanges().empty());
  CHECK_FALSE(vlans.empty());
}
