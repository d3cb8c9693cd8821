// The programs that vdpa-datapath starts, and the options that it passes to all of them.
#pragma once

#include <string>

#include "common/uplink_config.h"

namespace vdpa::datapath {

struct Programs {
  std::string worker;  // path of vdpa-worker
  std::string vswitch;
  std::string vswitchDpdk;  // the one that has uplinks
  std::string pmd;
  std::string sysfs = "/sys";
  std::string dev = "/dev";
  std::string logLevel = "info";
  std::string logFormat = "text";
  std::string cgroupRoot;  // the host's cgroup file systems; empty: they stay in our cgroup

  const std::string& switchFor(const UplinkConfig& uplink) const {
    return uplink.empty() ? vswitch : vswitchDpdk;
  }
};

}  // namespace vdpa::datapath
