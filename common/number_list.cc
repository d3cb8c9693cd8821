#include "common/number_list.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

namespace vdpa {
namespace {

constexpr size_t kMaxDigits = 4;

}  // namespace

std::optional<unsigned> parseNumber(std::string_view text) {
  unsigned number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || text.size() > kMaxDigits || parsed.ec != std::errc() ||
      parsed.ptr != text.data() + text.size())
    return std::nullopt;
  return number;
}

std::optional<std::vector<NumberRange>> parseNumberList(std::string_view text, size_t maxText) {
  if (text.size() > maxText) return std::nullopt;
  std::vector<NumberRange> ranges;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string_view part = text.substr(start, comma - start);
    const size_t dash = std::min(part.find('-'), part.size());
    const auto first = parseNumber(part.substr(0, dash));
    const auto last = dash == part.size() ? first : parseNumber(part.substr(dash + 1));
    if (!first || !last || *first > *last) return std::nullopt;
    ranges.push_back({*first, *last});
    start = comma + 1;
  }
  return ranges;
}

}  // namespace vdpa
