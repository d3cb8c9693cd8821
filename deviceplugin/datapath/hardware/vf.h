// A VF as its PF's driver keeps it: finding the PF in sysfs, reading and setting by rtnetlink.
//
// Source: include/uapi/linux/if_link.h (IFLA_VFINFO_LIST and struct ifla_vf_*), rtnl_fill_vfinfo()
// and do_setvfinfo() in net/core/rtnetlink.c of Linux 6.12.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace vdpa {

struct VfValues {
  unsigned vlan = 0;
  unsigned vlanQos = 0;
  std::string vlanProto = "802.1q";  // or 802.1ad
  unsigned minTxRate = 0;            // Mbit/s; 0: none
  unsigned maxTxRate = 0;            // Mbit/s; 0: no limit
  int spoofCheck = -1;               // 0, 1; -1: the driver doesn't tell
  int trust = -1;                    // likewise
  std::string linkState = "auto";    // auto | enable | disable
  std::string mac;                   // lower case; empty: the VF's driver has its own

  bool operator==(const VfValues&) const = default;
};

// What is set by one request.
enum class VfPart { mac, vlan, rate, spoofCheck, trust, linkState };

struct Vf {
  std::string pf;  // netdev
  unsigned index = 0;
  std::string driver;              // the PF's
  std::optional<VfValues> values;  // none: that driver has no settings of VFs
};

// One VF in a link's attributes, after netlink's header and ifinfomsg; nothing if it isn't there.
std::optional<VfValues> parseVf(std::span<const std::byte> attributes, unsigned index);

// Nothing if this function is no VF, or its PF has no netdev here. Throws std::system_error.
std::optional<Vf> findVf(const std::string& sysfs, const std::string& pciAddress);

// An errno value, 0 for success.
int writeVf(const Vf& vf, VfPart part, const VfValues& values);

}  // namespace vdpa
