#include "deviceplugin/datapath/worker/protocol/net_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace vdpa::worker {

std::array<uint8_t, 6> parseMac(const std::string& text) {
  std::array<uint8_t, 6> mac{};
  bool valid = text.size() == 17;
  for (size_t i = 0; valid && i < text.size(); ++i)
    valid = i % 3 == 2 ? text[i] == ':' : std::isxdigit(static_cast<unsigned char>(text[i])) != 0;
  if (!valid)
    throw std::invalid_argument(
        fmt::format("MAC address '{}': expected six bytes like 02:00:00:00:00:01", text));
  for (size_t i = 0; i < mac.size(); ++i)
    mac[i] = static_cast<uint8_t>(std::stoul(text.substr(3 * i, 2), nullptr, 16));
  return mac;
}

std::string formatMac(const std::array<uint8_t, 6>& mac) {
  return fmt::format("{:02x}", fmt::join(mac, ":"));
}

}  // namespace vdpa::worker
