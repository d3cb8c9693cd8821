#include "deviceplugin/datapath/model/default_mac.h"

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>

#include "common/mac_address.h"
#include "deviceplugin/datapath/model/owner.h"

namespace vdpa::datapath {
namespace {

// FNV-1a: its result is the same in every build and release.
uint64_t hash(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325;
  for (const unsigned char c : text) value = (value ^ c) * 0x100000001b3;
  return value;
}

}  // namespace

MacAddress defaultMac(const Owner& owner, const std::function<bool(const MacAddress&)>& taken) {
  const std::string who =
      owner.podName.empty() ? owner.containerId : owner.podNamespace + "/" + owner.podName;
  for (unsigned attempt = 0;; ++attempt) {
    uint64_t value = hash(fmt::format("{}/{}/{}/{}", who, owner.network, owner.interface, attempt));
    MacAddress::Bytes bytes;
    for (auto& byte : bytes) {
      byte = static_cast<uint8_t>(value);
      value >>= 8;
    }
    bytes[0] = static_cast<uint8_t>((bytes[0] & 0xfc) | 0x02);  // locally administered, unicast
    const MacAddress mac(bytes);
    if (!taken(mac)) return mac;
  }
}

}  // namespace vdpa::datapath
