// A set of VLANs as people write it: "100-110,200".
#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/number_list.h"

namespace vdpa {

inline constexpr unsigned kMaxVlan = 4094;  // IEEE 802.1Q, 9.6: 0 is no VLAN, 4095 is reserved

// VLANs from 1 to kMaxVlan. Two that contain the same VLANs are equal and have the same text.
class VlanRanges {
 public:
  using Set = std::bitset<kMaxVlan + 2>;  // by VLAN, as a frame's tag has it

  static constexpr size_t kMaxText = 1000;  // bytes

  VlanRanges() = default;  // none
  // Ranges in any order, which may overlap. Nothing if the text is longer than kMaxText, is
  // anything else, or names another number.
  static std::optional<VlanRanges> parse(std::string_view text);

  // In order, ranges as long as possible. Empty if there are none.
  std::string text() const;
  bool empty() const { return ranges_.empty(); }
  bool contains(unsigned vlan) const;
  Set set() const;

  bool operator==(const VlanRanges&) const = default;

 private:
  std::vector<NumberRange> ranges_;  // in order, with other VLANs between them
};

}  // namespace vdpa
