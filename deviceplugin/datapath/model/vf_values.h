// The settings of a VF in its PF's driver.
#pragma once

#include <string>

namespace vdpa::datapath {

struct VfValues {
  unsigned vlan = 0;
  unsigned vlanQos = 0;
  std::string vlanProto = "802.1q";  // or 802.1ad
  unsigned minTxRate = 0;            // Mbit/s; 0: none
  unsigned maxTxRate = 0;            // Mbit/s; 0: no limit
  int spoofCheck = -1;               // 0, 1; -1: the driver doesn't report it
  int trust = -1;                    // 0, 1; -1: the driver doesn't report it
  std::string linkState = "auto";    // auto | enable | disable
  std::string mac;                   // lower case; empty: the VF's driver has its own

  bool operator==(const VfValues&) const = default;
};

// The settings that one request changes.
enum class VfPart { mac, vlan, rate, spoofCheck, trust, linkState };

}  // namespace vdpa::datapath
