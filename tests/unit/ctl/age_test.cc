// Ages for people, correct even if the clock was changed.
#include "deviceplugin/ctl/age.h"

#include <catch2/catch.hpp>

#include <cstdint>

using vdpa::ctl::age;

TEST_CASE("ages are short") {
  CHECK(age(1000, 1000) == "0s");
  CHECK(age(1000, 1119) == "119s");
  CHECK(age(1000, 1120) == "2m");
  CHECK(age(0, 7199) == "119m");
  CHECK(age(0, 7200) == "2h");
  CHECK(age(0, 172799) == "47h");
  CHECK(age(0, 172800) == "2d");
}

TEST_CASE("a clock that jumped makes no age negative") {
  CHECK(age(2000, 1000) == "0s");
  CHECK(age(INT64_MAX, 0) == "0s");
  CHECK(age(INT64_MAX, INT64_MIN) == "0s");
  CHECK(age(-100, 100) == "3m");
  CHECK(age(INT64_MIN, INT64_MAX) == "213503982334601d");
}
