// The attributes passed to the kernel for a vDPA device, and the next attempt if it refuses them.
#include "common/vdpa_attributes.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/mac_address.h"
#include "common/virtio_features.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;

namespace {

constexpr uint64_t kAll = kFeatureMac | kFeatureMtu | kFeatureControlQueue | kFeatureMultiqueue |
                          kFeatureVersion1 | kFeatureAccessPlatform;
const VdpaParent kParent{"pci/0000:65:00.2", 9, kAll, true};  // its function has a MAC
const VdpaParent kWithoutMac{"pci/0000:65:00.2", 9, kAll};

}  // namespace

TEST_CASE("features have iproute2's names, and back") {
  CHECK(featureNames(kAll) == "MTU, MAC, CTRL_VQ, MQ, VERSION_1, ACCESS_PLATFORM");
  CHECK(featureNames(featureBit(40) | featureBit(63)) == "bit_40, SPEED_DUPLEX");
  CHECK(featureNames(0).empty());
  for (unsigned bit = 0; bit < 64; ++bit)
    CHECK(parseFeature(featureNames(featureBit(bit))) == featureBit(bit));
  for (const char* word : {"", "mac", "bit_64", "bit_", "bit_4x"}) CHECK_FALSE(parseFeature(word));
}

TEST_CASE("all is what the parent has, less of it where the kernel refuses that") {
  const auto ways = waysToMake({0, 0, 0, {}}, kParent);
  REQUIRE(ways.size() == 2);
  CHECK(ways[0] == VdpaAttributes{4, kAll, 0, {}});
  CHECK(ways[1] == VdpaAttributes());  // a kernel without attributes
}

TEST_CASE("a parent without a MAC is never asked for the feature MAC alone") {
  const MacAddress mac = "02:00:00:00:00:01"_mac;
  const std::optional<uint64_t> none, all = 0, listed = kFeatureMac | kFeatureMtu;
  for (const auto& features : {none, all, listed}) {
    for (const auto& way : waysToMake({0, features, 0, {}}, kWithoutMac))
      CHECK_FALSE((way.features.value_or(0) & kFeatureMac));
    // It is passed if one is given, or if the function has one.
    CHECK(waysToMake({0, features, 0, mac}, kWithoutMac) ==
          waysToMake({0, features, 0, mac}, kParent));
    CHECK(dependsOnMac({0, features, 0, {}}, kWithoutMac) == features.has_value());
    CHECK_FALSE(dependsOnMac({0, features, 0, mac}, kWithoutMac));
  }
  const auto given = waysToMake({0, listed, 0, mac}, kWithoutMac);
  CHECK((*given[0].features & (kFeatureMac | kFeatureMtu)) == *listed);
  CHECK_FALSE(dependsOnMac({0, kFeatureMtu, 0, {}}, kWithoutMac));  // no network requests it
}

TEST_CASE("what somebody asked for is never left out") {
  const auto ways = waysToMake({0, 0, 9000, "02:00:00:00:00:01"_mac}, kParent);
  REQUIRE(ways.size() == 2);
  CHECK(ways[0] == VdpaAttributes{4, kAll, 9000, "02:00:00:00:00:01"_mac});
  CHECK(ways[1] == VdpaAttributes{std::nullopt, std::nullopt, 9000, "02:00:00:00:00:01"_mac});
  CHECK(waysToMake({2, kFeatureMac, 0, {}}, kParent).size() == 1);
  CHECK(waysToMake({}, kParent) == std::vector<VdpaAttributes>(1));
}

TEST_CASE("a list of features gets what the attributes and virtio 1 need of it") {
  const uint64_t base = kFeatureVersion1 | kFeatureAccessPlatform;
  const auto first = [](const VdpaAttributes& wanted) {
    return *waysToMake(wanted, kParent)[0].features;
  };
  CHECK(first({std::nullopt, kFeatureMac, 0, {}}) == (kFeatureMac | base));
  CHECK(first({std::nullopt, kFeatureMac, 1400, {}}) == (kFeatureMac | kFeatureMtu | base));
  CHECK(first({std::nullopt, kFeatureMtu, 0, "02:00:00:00:00:01"_mac}) ==
        (kFeatureMac | kFeatureMtu | base));
  // Only attributes that the parent supports, since the kernel refuses others.
  CHECK(*waysToMake({std::nullopt, kFeatureMac, 0, {}}, {"p", 3, kFeatureMac, true})[0].features ==
        kFeatureMac);
}

TEST_CASE("a list of features without MQ is not widened: it means one pair") {
  const uint64_t base = kFeatureVersion1 | kFeatureAccessPlatform;
  CHECK(waysToMake({0, kFeatureMtu, 0, {}}, kParent)[0] ==
        VdpaAttributes{std::nullopt, kFeatureMtu | base, 0, {}});
  CHECK(waysToMake({1, kFeatureMtu, 0, {}}, kParent)[0] ==
        VdpaAttributes{1, kFeatureMtu | base, 0, {}});
  const uint64_t several = kFeatureMultiqueue | kFeatureControlQueue;
  CHECK(waysToMake({0, several, 0, {}}, kParent)[0] == VdpaAttributes{4, several | base, 0, {}});
}

TEST_CASE("a parent of one pair, or of which nothing is known, is asked for no more") {
  CHECK(waysToMake({0, std::nullopt, 0, {}}, {"p", 3, 0})[0] == VdpaAttributes());
  CHECK(waysToMake({0, 0, 0, {}}, {"p", 0, 0})[0] == VdpaAttributes());
}

TEST_CASE("what a parent can't do is named with what it can") {
  CHECK(unsupported({4, kAll, 9000, {}}, kParent).empty());
  CHECK(unsupported({5, std::nullopt, 0, {}}, kParent) ==
        "vdpa.queuePairs is 5, but pci/0000:65:00.2 makes at most 4");
  CHECK(unsupported({std::nullopt, featureBit(15) | kFeatureMac, 0, {}}, kParent) ==
        "vdpa.features has MRG_RXBUF, which pci/0000:65:00.2 does not support; it supports MTU, "
        "MAC, CTRL_VQ, MQ, VERSION_1, ACCESS_PLATFORM");
  CHECK(unsupported({5, kAll, 0, {}}, {"not bound yet", 0, 0}).empty());
}

TEST_CASE("attributes in words") {
  CHECK(describe(VdpaAttributes()) == "the driver's defaults");
  CHECK(describe({0, 0, 0, {}}) == "all queue pairs, all features");
  CHECK(describe({4, kFeatureMac, 9000, "02:00:00:00:00:01"_mac}) ==
        "4 queue pairs, mtu 9000, mac 02:00:00:00:00:01, features MAC");
}
