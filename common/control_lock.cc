// A record lock (fcntl(2)), since the kernel reports its holder.
#include "common/control_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

std::string fileOf(const std::string& control) {
  const size_t end = control.find_last_of("./");
  const bool extension = end != std::string::npos && control[end] == '.';
  return control.substr(0, extension ? end : std::string::npos) + ".lock";
}

struct flock wholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

UniqueFd openLock(const std::string& control) {
  return UniqueFd(checked(::open(fileOf(control).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                          "cannot open {}", fileOf(control)));
}

std::runtime_error taken(pid_t pid, const std::string& control) {
  return std::runtime_error(
      fmt::format("process {} already has the control socket {}: stop it first", pid, control));
}

}  // namespace

ControlLock::ControlLock(const std::string& control) : file_(openLock(control)) {
  struct flock lock = wholeFile();
  if (::fcntl(file_.get(), F_SETLK, &lock) == 0) return;
  if (errno != EAGAIN && errno != EACCES) checked(-1, "cannot lock {}", fileOf(control));
  throw taken(lockHolder(control), control);
}

pid_t lockHolder(const std::string& control) {
  const UniqueFd file(::open(fileOf(control).c_str(), O_RDWR | O_CLOEXEC));
  if (!file && errno == ENOENT) return 0;
  checked(file.get(), "cannot open {}", fileOf(control));
  struct flock lock = wholeFile();
  checked(::fcntl(file.get(), F_GETLK, &lock), "cannot tell who holds {}", fileOf(control));
  return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

void removeLock(const std::string& control) {
  ::unlink(fileOf(control).c_str());
}

}  // namespace vdpa
