#include "deviceplugin/datapath/netlink/ip_prefix.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include "common/errors.h"

namespace vdpa::datapath {

IpPrefix parsePrefix(const std::string& text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const std::string address = text.substr(0, slash);
  IpPrefix prefix;
  std::array<uint8_t, 16> bytes{};
  if (::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1)
    prefix.bytes.assign(bytes.begin(), bytes.begin() + 4);
  else if (::inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1)
    prefix.bytes.assign(bytes.begin(), bytes.end());
  else
    throw systemError(EINVAL, "'{}' is not an IP address", text);
  prefix.family = prefix.bytes.size() == 4 ? AF_INET : AF_INET6;
  unsigned length = static_cast<unsigned>(prefix.bytes.size()) * 8;
  if (slash < text.size()) {
    const char* end = text.data() + text.size();
    unsigned given = 0;
    const auto parsed = std::from_chars(text.data() + slash + 1, end, given);
    if (parsed.ec != std::errc() || parsed.ptr != end || given > length)
      throw systemError(EINVAL, "'{}' has no valid prefix length", text);
    length = given;
  }
  prefix.length = static_cast<uint8_t>(length);
  return prefix;
}

IpPrefix IpPrefix::network() const {
  IpPrefix network = *this;
  for (size_t i = 0; i < network.bytes.size(); ++i) {
    const int kept = std::clamp(static_cast<int>(length) - static_cast<int>(i) * 8, 0, 8);
    network.bytes[i] = static_cast<uint8_t>(network.bytes[i] & (0xff00 >> kept));
  }
  return network;
}

std::string IpPrefix::text() const {
  std::array<char, INET6_ADDRSTRLEN> buffer;
  const char* address = ::inet_ntop(family, bytes.data(), buffer.data(), buffer.size());
  return fmt::format("{}/{}", address ? address : "?", length);
}

}  // namespace vdpa::datapath
