// The programs that vdpa-datapath starts, and the options that it passes to all of them.
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
  std::string cgroupRoot;  // the host's cgroup file systems; empty: they stay in our cgroup
};

}  // namespace vdpa::datapath
