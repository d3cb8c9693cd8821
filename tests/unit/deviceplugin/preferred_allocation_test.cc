// The devices that the plugin advises the kubelet to take.
#include "deviceplugin/resources/preferred_allocation.h"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "deviceplugin/config/config.h"

using namespace vdpa;
using namespace vdpa::plugin;
using Ids = std::vector<std::string>;

TEST_CASE("natural order") {
  CHECK(naturalLess("nic-2", "nic-10"));
  CHECK_FALSE(naturalLess("nic-10", "nic-2"));
  CHECK(naturalLess("nic-9", "nic-10"));
  CHECK(naturalLess("a", "b"));
  CHECK(naturalLess("nic", "nic-0"));
  CHECK(naturalLess("nic-01", "nic-1") != naturalLess("nic-1", "nic-01"));  // a total order
  CHECK_FALSE(naturalLess("x1", "x1"));
  CHECK(naturalLess("0000:65:00.2", "0000:65:01.0"));
  CHECK(naturalLess("n99999999999999999999998", "n99999999999999999999999"));
}

namespace {

std::vector<Choice> ports(const Ids& ids) {
  std::vector<Choice> choices;
  for (const auto& id : ids) choices.push_back({id, -1, ""});
  return choices;
}

Ids prefer(const std::vector<Choice>& available, const Ids& included, int count,
           AllocationOrder order = AllocationOrder::spread) {
  return preferDevices(available, included, count, order);
}

// Two PFs on each of two nodes: a and b on node 0, c and d on node 1; d has fewer VFs.
const std::vector<Choice> kVfs = {{"a1", 0, "a"}, {"a2", 0, "a"}, {"a3", 0, "a"},
                                  {"b1", 0, "b"}, {"b2", 0, "b"}, {"b3", 0, "b"},
                                  {"c1", 1, "c"}, {"c2", 1, "c"}, {"d1", 1, "d"}};

}  // namespace

TEST_CASE("must-include first, then the first free ones") {
  CHECK(prefer(ports({"nic-10", "nic-2", "nic-1"}), {}, 2) == Ids{"nic-1", "nic-2"});
  CHECK(prefer(ports({"nic-10", "nic-2", "nic-1"}), {"nic-10"}, 2) == Ids{"nic-10", "nic-1"});
  CHECK(prefer(ports({"a", "b"}), {"b", "a"}, 2) == Ids{"b", "a"});
  CHECK(prefer({}, {}, 0).empty());
}

TEST_CASE("spread takes another PF, pack the same") {
  CHECK(prefer(kVfs, {}, 2) == Ids{"c1", "d1"});
  CHECK(prefer(kVfs, {}, 4) == Ids{"a1", "b1", "a2", "b2"});
  CHECK(prefer(kVfs, {}, 2, AllocationOrder::pack) == Ids{"d1", "c1"});
  CHECK(prefer(kVfs, {"a2"}, 3, AllocationOrder::pack) == Ids{"a2", "a1", "a3"});
  CHECK(prefer(kVfs, {"a2"}, 3) == Ids{"a2", "b1", "a1"});
}

TEST_CASE("one NUMA node if one is enough, that of the included ones first") {
  CHECK(prefer(kVfs, {"c2"}, 2) == Ids{"c2", "d1"});
  CHECK(prefer(kVfs, {"a1"}, 2, AllocationOrder::pack) == Ids{"a1", "a2"});
  CHECK(prefer(kVfs, {"c1"}, 4) == Ids{"c1", "a1", "b1", "a2"});  // node 1 hasn't enough
  CHECK(prefer(kVfs, {}, 7).size() == 7);
}

TEST_CASE("what cannot be is refused") {
  CHECK_THROWS_WITH(prefer(ports({"a"}), {}, 2),
                    "2 devices are requested, but only 1 are available");
  CHECK_THROWS_WITH(prefer(ports({"a"}), {"b"}, 1),
                    "device b must be included but is not available");
  CHECK_THROWS_WITH(prefer(ports({"a", "b"}), {"a", "b"}, 1),
                    "2 devices must be included, but only 1 are requested");
  CHECK_THROWS(prefer(ports({"a"}), {}, -1));
  CHECK_THROWS(prefer(ports({"a", "a"}), {}, 2));
}
