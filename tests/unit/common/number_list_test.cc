// Lists of numbers.
#include "common/number_list.h"

#include <catch2/catch.hpp>

#include <vector>

using namespace vdpa;

TEST_CASE("lists of numbers") {
  CHECK(parseNumberList("7") == std::vector<NumberRange>{{7, 7}});
  CHECK(parseNumberList("2-3,6,0-0") == std::vector<NumberRange>{{2, 3}, {6, 6}, {0, 0}});
  CHECK(parseNumberList("9999") == std::vector<NumberRange>{{9999, 9999}});
}

TEST_CASE("what is no list of numbers") {
  for (const char* text :
       {"", ",", "1,", ",1", "3-2", "-1", "1-", "1-2-3", " 1", "+1", "a", "10000"})
    CHECK_FALSE(parseNumberList(text));
  CHECK_FALSE(parseNumberList(std::string(150, '1') + "," + std::string(150, '1')));
}
