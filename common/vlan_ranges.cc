#include "common/vlan_ranges.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "common/number_list.h"

namespace vdpa {

std::optional<VlanRanges> VlanRanges::parse(std::string_view text) {
  auto given = parseNumberList(text, kMaxText);
  if (!given) return std::nullopt;
  std::ranges::sort(*given, {}, &NumberRange::first);
  VlanRanges vlans;
  for (const auto& range : *given) {
    if (range.first == 0 || range.last > kMaxVlan) return std::nullopt;
    if (!vlans.empty() && range.first <= vlans.ranges_.back().last + 1)
      vlans.ranges_.back().last = std::max(vlans.ranges_.back().last, range.last);
    else
      vlans.ranges_.push_back(range);
  }
  return vlans;
}

std::string VlanRanges::text() const {
  std::string text;
  for (const auto& [first, last] : ranges_) {
    if (!text.empty()) text += ',';
    text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
  }
  return text;
}

bool VlanRanges::contains(unsigned vlan) const {
  return std::ranges::any_of(
      ranges_, [&](const auto& range) { return range.first <= vlan && vlan <= range.last; });
}

VlanRanges::Set VlanRanges::set() const {
  Set set;
  for (const auto& [first, last] : ranges_)
    for (unsigned vlan = first; vlan <= last; ++vlan) set.set(vlan);
  return set;
}

}  // namespace vdpa
