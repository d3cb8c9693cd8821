// See the header. A record lock, since the kernel tells who has one.
#include "common/control_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "common/errors.h"

namespace vdpa {
namespace {

std::string fileOf(const std::string& control) {
  return std::filesystem::path(control).replace_extension(".lock");
}

struct flock wholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

ControlLock::ControlLock(const std::string& control)
    : file_(checked(::open(fileOf(control).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                    "cannot open {}", fileOf(control))) {
  struct flock lock = wholeFile();
  if (::fcntl(file_.get(), F_SETLK, &lock) == 0) return;
  if (errno != EAGAIN && errno != EACCES) checked(-1, "cannot lock {}", fileOf(control));
  throw std::runtime_error(fmt::format("process {} has the control socket {} already: end it first",
                                       lockHolder(control), control));
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
