// "02:00:00:00:00:01"_mac, and how a failed comparison prints one.
#pragma once

#include <catch2/catch.hpp>

#include <cstddef>
#include <string>
#include <string_view>

#include "common/mac_address.h"

namespace vdpa {

inline MacAddress operator""_mac(const char* text, size_t length) {
  return MacAddress::parseOrThrow(std::string_view(text, length));
}

}  // namespace vdpa

template <>
struct Catch::StringMaker<vdpa::MacAddress> {
  static std::string convert(const vdpa::MacAddress& mac) { return mac.text(); }
};
