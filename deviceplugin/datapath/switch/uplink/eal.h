// DPDK's environment for this process.
#pragma once

#include <string>
#include <vector>

namespace vdpa::vswitch {

class Eal {
 public:
  // `directory` and `words` are as for dpdk::startEal(); `uplink` is for the error. Throws
  // std::runtime_error with EAL's reason.
  Eal(const std::string& directory, const std::string& uplink, std::vector<std::string> words);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;
};

}  // namespace vdpa::vswitch
