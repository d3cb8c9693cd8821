// Ensures that only one instance of a program at a time works in a run directory.
#pragma once

#include <string>

#include "common/unique_fd.h"

namespace vdpa {

class InstanceLock {
 public:
  enum class Others { refuse, waitFor };

  // Locks the file `path`, which is created if it is missing and then has our process ID. If
  // another instance of `program` holds it, throws std::runtime_error naming that process, or waits
  // until it has ended.
  InstanceLock(const std::string& path, const std::string& program, Others others);

 private:
  UniqueFd file_;  // the lock goes with it
};

}  // namespace vdpa
