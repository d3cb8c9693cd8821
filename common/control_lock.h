// Gives a control socket to one process at a time, even before it listens there: a program's start
// may take seconds, and two of them would drive one device or bridge one netdev.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/unique_fd.h"

namespace vdpa {

// The program's side; held for as long as it runs. The lock ends with the process; the program that
// stopped the process removes the file.
class ControlLock {
 public:
  // `control` is the socket's path; the file is beside it: control.lock for control.sock. Throws
  // std::runtime_error naming the process that has it.
  explicit ControlLock(const std::string& control);

 private:
  UniqueFd file_;
};

// The process that holds the lock of `control`; 0: none, a process that was just started and has
// only its listening socket yet, or one that is invisible from here. Throws std::system_error.
pid_t lockHolder(const std::string& control);

// Call only when no process holds the lock.
void removeLock(const std::string& control);

}  // namespace vdpa
