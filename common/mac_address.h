// A 48-bit MAC address (IEEE 802-2014, section 8) as the wire and the kernel have it: six bytes in
// transmission order.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vdpa {

class MacAddress {
 public:
  using Bytes = std::array<uint8_t, 6>;

  constexpr MacAddress() = default;  // 00:00:00:00:00:00, which no station has
  constexpr explicit MacAddress(const Bytes& bytes) : bytes_(bytes) {}

  // Six pairs of hexadecimal digits of either case with colons between them; nothing else.
  static std::optional<MacAddress> parse(std::string_view text);
  // Throws std::invalid_argument that quotes `text`.
  static MacAddress parseOrThrow(std::string_view text);

  constexpr const Bytes& bytes() const { return bytes_; }
  std::string text() const;  // "02:00:00:00:00:01", in lower case

  constexpr bool isZero() const { return *this == MacAddress(); }
  constexpr bool isMulticast() const { return (bytes_[0] & 1) != 0; }  // broadcast included
  // What one station may have.
  constexpr bool isUnicast() const { return !isZero() && !isMulticast(); }

  constexpr auto operator<=>(const MacAddress&) const = default;

 private:
  Bytes bytes_{};
};

}  // namespace vdpa
