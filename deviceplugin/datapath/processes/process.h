// One process of ours, by its pidfd: a pid alone may be somebody else's by the time it is used.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::datapath {

class Process {
 public:
  // Starts `arguments[0]` in a session of its own, so that it outlives us, with our standard
  // streams and no other descriptor than `inherited`, which becomes its first besides those;
  // `output`, if there is one, becomes its standard output. Throws std::system_error.
  static Process start(const std::vector<std::string>& arguments, int inherited = -1,
                       int output = -1);
  // Opens a running process. Throws std::system_error if there is none.
  static Process adopt(pid_t pid);

  pid_t pid() const { return pid_; }
  int fd() const { return fd_.get(); }  // readable once it has ended
  void kill();
  // True once it has ended. Reaps it if it is a child of ours.
  bool waitEnd(std::chrono::microseconds timeout);
  // After its end, in words: "exited with status 1".
  const std::string& ending() const { return ending_; }
  // After its end: SIGKILL ended it, or how it ended is not known (an adopted process).
  bool killed() const { return killed_; }

 private:
  Process(pid_t pid, UniqueFd fd) : pid_(pid), fd_(std::move(fd)) {}

  pid_t pid_;
  UniqueFd fd_;
  bool ended_ = false;
  std::string ending_ = "ended";
  bool killed_ = true;
};

// Looks for the program in the directories, in order. Throws std::runtime_error naming them.
std::string findProgram(const std::string& name, const std::vector<std::string>& directories);

// What `program --version` prints. Throws std::runtime_error with the reason if it prints nothing.
std::string versionOf(const std::string& program);

}  // namespace vdpa::datapath
