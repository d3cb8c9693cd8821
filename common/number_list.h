// Lists of small numbers as people and the kernel write them: "2-3,6", of CPUs or of VFs.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace vdpa {

struct NumberRange {
  unsigned first = 0;
  unsigned last = 0;  // included; not below first
  bool operator==(const NumberRange&) const = default;
};

// A number to 9999, of digits alone.
std::optional<unsigned> parseNumber(std::string_view text);

// Such numbers, in ranges as written. Nothing if that is not what the text is: an empty one,
// spaces and signs are not.
std::optional<std::vector<NumberRange>> parseNumberList(std::string_view text);

}  // namespace vdpa
