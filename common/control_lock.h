// One process at a time has a control socket, also before it listens there: what a program does
// first may take seconds, and two of them would drive one device or bridge one netdev.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/unique_fd.h"

namespace vdpa {

// The program's side, to be held for as long as it runs. The lock ends with the process, its file
// is removed by whoever ended that.
class ControlLock {
 public:
  // `control` is the socket's path; the file is beside it: control.lock for control.sock. Throws
  // std::runtime_error naming the process that has it.
  explicit ControlLock(const std::string& control);

 private:
  UniqueFd file_;
};

// The process that has the lock of `control`; 0: none, one that was started this moment and has
// only its listening socket yet, or one that can't be seen from here. Throws std::system_error.
pid_t lockHolder(const std::string& control);

// To be called when nobody has the lock.
void removeLock(const std::string& control);

}  // namespace vdpa
