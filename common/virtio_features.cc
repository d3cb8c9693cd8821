#include "common/virtio_features.h"

#include <fmt/core.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace vdpa {
namespace {

struct Name {
  unsigned bit;
  const char* name;
};
constexpr Name kNames[] = {
    {0, "CSUM"},
    {1, "GUEST_CSUM"},
    {2, "CTRL_GUEST_OFFLOADS"},
    {3, "MTU"},
    {5, "MAC"},
    {7, "GUEST_TSO4"},
    {8, "GUEST_TSO6"},
    {9, "GUEST_ECN"},
    {10, "GUEST_UFO"},
    {11, "HOST_TSO4"},
    {12, "HOST_TSO6"},
    {13, "HOST_ECN"},
    {14, "HOST_UFO"},
    {15, "MRG_RXBUF"},
    {16, "STATUS"},
    {17, "CTRL_VQ"},
    {18, "CTRL_RX"},
    {19, "CTRL_VLAN"},
    {20, "CTRL_RX_EXTRA"},
    {21, "GUEST_ANNOUNCE"},
    {22, "MQ"},
    {23, "CTRL_MAC_ADDR"},
    {24, "NOTIFY_ON_EMPTY"},
    {27, "ANY_LAYOUT"},
    {28, "RING_INDIRECT_DESC"},
    {29, "RING_EVENT_IDX"},
    {32, "VERSION_1"},
    {33, "ACCESS_PLATFORM"},
    {34, "RING_PACKED"},
    {35, "IN_ORDER"},
    {36, "ORDER_PLATFORM"},
    {37, "SR_IOV"},
    {38, "NOTIFICATION_DATA"},
    {57, "HASH_REPORT"},
    {60, "RSS"},
    {61, "RSC_EXT"},
    {62, "STANDBY"},
    {63, "SPEED_DUPLEX"},
};

}  // namespace

std::optional<uint64_t> parseFeature(const std::string& name) {
  for (const auto& known : kNames)
    if (name == known.name) return featureBit(known.bit);
  constexpr std::string_view kPrefix = "bit_";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  unsigned bit = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, bit);
  if (parsed.ec != std::errc() || parsed.ptr != end || bit > 63) return std::nullopt;
  return featureBit(bit);
}

std::string featureNames(uint64_t features) {
  std::string text;
  const auto* known = std::begin(kNames);
  for (unsigned bit = 0; bit < 64; ++bit) {
    if (known != std::end(kNames) && known->bit < bit) ++known;
    if (!(features & featureBit(bit))) continue;
    const bool named = known != std::end(kNames) && known->bit == bit;
    text += (text.empty() ? "" : ", ") + (named ? known->name : fmt::format("bit_{}", bit));
  }
  return text;
}

std::string allFeatureNames() {
  uint64_t all = 0;
  for (const auto& known : kNames) all |= featureBit(known.bit);
  return featureNames(all);
}

}  // namespace vdpa
