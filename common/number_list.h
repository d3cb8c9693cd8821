// Lists of small numbers as people and the kernel write them: "2-3,6", for CPUs or VFs.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace vdpa {

struct NumberRange {
  unsigned first = 0;
  unsigned last = 0;  // included; not below first
  bool operator==(const NumberRange&) const = default;
};

// A number up to 9999, digits only.
std::optional<unsigned> parseNumber(std::string_view text);

// Such numbers, in ranges as written. Nothing if the text is anything else, is empty, has spaces or
// signs, or more than `maxText` bytes.
std::optional<std::vector<NumberRange>> parseNumberList(std::string_view text,
                                                        size_t maxText = 200);

}  // namespace vdpa
