#include "common/port_settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/mac_address.h"
#include "common/vlan_ranges.h"

namespace vdpa {
namespace {

constexpr size_t kMaxQuoted = 40;  // bytes; the text is from outside

std::string quoted(const std::string& text) {
  return text.size() <= kMaxQuoted ? text : text.substr(0, kMaxQuoted) + "…";
}

bool sameWord(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

PortSettings defaultSettings() {
  PortSettings port;
  forEachSetting([](const Setting&, auto& value) { value.emplace(); }, port);
  port.mac.reset();
  port.mtu = 1500;
  return port;
}

void overlay(PortSettings& port, const PortSettings& over) {
  forEachSetting(
      [](const Setting&, auto& value, const auto& other) {
        if (other) value = other;
      },
      port, over);
}

void checkTogether(const PortSettings& settings) {
  const unsigned vlan = settings.vlan.value_or(0);
  if (settings.vlanTrunk && settings.vlanTrunk->contains(vlan))
    throw std::invalid_argument(fmt::format(
        "vlan {} is also in vlanTrunk {}: frames of a trunk's native VLAN have no tag; take it out "
        "of one of them",
        vlan, quoted(textOf(settings.vlanTrunk))));
  if (const unsigned burst = settings.burst.value_or(0);
      burst != 0 && settings.maxTxRate.value_or(0) == 0 && settings.maxRxRate.value_or(0) == 0)
    throw std::invalid_argument(
        fmt::format("burst {} needs a max_tx_rate or max_rx_rate that is not 0", burst));
}

void readText(std::string_view key, const std::string& text, MacAddress& mac) {
  const auto found = MacAddress::parse(text);
  if (!found || !found->isUnicast())
    throw std::invalid_argument(fmt::format(
        "{} '{}'{} expected a unicast address such as 02:00:00:00:00:01", key, quoted(text),
        found && found->isMulticast() ? " is a multicast address;" : ":"));
  mac = *found;
}

void readText(std::string_view key, const std::string& text, VlanRanges& vlans) {
  const auto found = VlanRanges::parse(text);
  if (!found)
    throw std::invalid_argument(
        fmt::format("{} '{}': expected VLANs of 1 to {} such as 100-110,200, in at most {} bytes",
                    key, quoted(text), kMaxVlan, VlanRanges::kMaxText));
  vlans = *found;
}

size_t indexOfWord(std::string_view key, const std::string& text,
                   std::span<const char* const> words) {
  const auto found =
      std::ranges::find_if(words, [&](const char* word) { return sameWord(word, text); });
  if (found == words.end())
    throw std::invalid_argument(
        fmt::format("{} '{}': expected {}", key, quoted(text), fmt::join(words, " or ")));
  return static_cast<size_t>(found - words.begin());
}

}  // namespace vdpa
