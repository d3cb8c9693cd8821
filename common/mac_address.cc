#include "common/mac_address.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace vdpa {

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  Bytes bytes{};
  constexpr size_t kStride = 3;  // two digits and a colon
  if (text.size() != kStride * bytes.size() - 1) return std::nullopt;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char* const digits = text.data() + kStride * i;
    // from_chars() takes neither sign nor prefix for an unsigned type.
    if (std::from_chars(digits, digits + 2, bytes[i], 16).ptr != digits + 2) return std::nullopt;
    if (i > 0 && digits[-1] != ':') return std::nullopt;
  }
  return MacAddress(bytes);
}

MacAddress MacAddress::parseOrThrow(std::string_view text) {
  if (const auto address = parse(text)) return *address;
  throw std::invalid_argument(
      fmt::format("MAC address '{}': expected six bytes such as 02:00:00:00:00:01", text));
}

std::string MacAddress::text() const {
  return fmt::format("{:02x}", fmt::join(bytes_, ":"));
}

}  // namespace vdpa
