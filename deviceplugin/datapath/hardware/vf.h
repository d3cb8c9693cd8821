// A VF as its PF's driver configures it: finds the PF in sysfs, reads and sets the VF by rtnetlink.
//
// Source: include/uapi/linux/if_link.h (IFLA_VFINFO_LIST and struct ifla_vf_*), rtnl_fill_vfinfo()
// and do_setvfinfo() in net/core/rtnetlink.c of Linux 6.12.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {

struct Vf {
  std::string pf;  // netdev
  unsigned index = 0;
  std::string driver;              // the PF's
  std::optional<VfValues> values;  // none: that driver has no VF settings
};

// One VF in a link's attributes, after netlink's header and ifinfomsg; nothing if it isn't there.
std::optional<VfValues> parseVf(std::span<const std::byte> attributes, unsigned index);

// Nothing if this function is not a VF, or its PF has no netdev here. Throws std::system_error.
std::optional<Vf> findVf(const std::string& sysfs, const std::string& pciAddress);

// An errno value, 0 for success.
int writeVf(const Vf& vf, VfPart part, const VfValues& values);

}  // namespace vdpa::datapath
