// An IP address with the length of its prefix, as rtnetlink has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vdpa::datapath {

struct IpPrefix {
  uint8_t family = 0;
  uint8_t length = 0;  // bits
  std::vector<uint8_t> bytes;

  // With the bits after the prefix cleared.
  IpPrefix network() const;
  // "10.0.0.2/24", as the kernel would write it.
  std::string text() const;
};

// "10.0.0.2/24", or an address alone. Throws std::system_error.
IpPrefix parsePrefix(const std::string& text);

}  // namespace vdpa::datapath
