// Ensures that only one vdpa-datapath at a time works in a run directory.
#pragma once

#include <string>

#include "common/unique_fd.h"

namespace vdpa::datapath {

class InstanceLock {
 public:
  // Throws std::runtime_error naming the process that holds it.
  explicit InstanceLock(const std::string& path);

 private:
  UniqueFd file_;  // the lock goes with it
};

}  // namespace vdpa::datapath
