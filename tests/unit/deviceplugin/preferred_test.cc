// Which devices the kubelet is advised to take.
#include "deviceplugin/resources/preferred.h"

#include <catch2/catch.hpp>

using namespace vdpa;
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

TEST_CASE("must-include first, then the first free ones") {
  CHECK(preferDevices({"nic-10", "nic-2", "nic-1"}, {}, 2) == Ids{"nic-1", "nic-2"});
  CHECK(preferDevices({"nic-10", "nic-2", "nic-1"}, {"nic-10"}, 2) == Ids{"nic-10", "nic-1"});
  CHECK(preferDevices({"a", "b"}, {"b", "a"}, 2) == Ids{"b", "a"});
  CHECK(preferDevices({}, {}, 0).empty());
}

TEST_CASE("what cannot be is refused") {
  CHECK_THROWS_WITH(preferDevices({"a"}, {}, 2),
                    "2 devices are asked for but only 1 are available");
  CHECK_THROWS_WITH(preferDevices({"a"}, {"b"}, 1),
                    "device b must be included but is not available");
  CHECK_THROWS_WITH(preferDevices({"a", "b"}, {"a", "b"}, 1), "2 devices must be included in 1");
  CHECK_THROWS(preferDevices({"a"}, {}, -1));
  CHECK_THROWS(preferDevices({"a", "a"}, {}, 2));
}
