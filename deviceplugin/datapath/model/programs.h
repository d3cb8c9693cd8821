// The programs that vdpa-datapath starts, and what it passes on to all of them.
#pragma once

#include <string>

namespace vdpa::datapath {

struct Programs {
  std::string worker;  // path of vdpa-worker
  std::string vswitch;
  std::string pmd;
  std::string sysfs = "/sys";
  std::string dev = "/dev";
  std::string logLevel = "info";
  std::string logFormat = "text";
  std::string cgroupRoot;  // where the host's cgroups are; if empty, they stay in ours
};

}  // namespace vdpa::datapath
