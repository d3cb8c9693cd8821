#include "common/instance_lock.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>

#include "common/atomic_file.h"
#include "common/errors.h"
#include "common/log.h"

namespace vdpa {

InstanceLock::InstanceLock(const std::string& path, const std::string& program, Others others)
    : file_(checked(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "cannot open {}",
                    path)) {
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) checked(-1, "cannot lock {}", path);
    if (others == Others::refuse)
      throw std::runtime_error(
          fmt::format("another {}, process {}, is already running: it holds {}", program,
                      readFile(path), path));
    log::info("another {} holds {}; waiting until it exits", program, path);
    while (::flock(file_.get(), LOCK_EX) < 0)
      if (errno != EINTR) throw systemError(errno, "cannot lock {}", path);
  }
  // Only for the message above; on a full disk the lock still holds.
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(file_.get(), 0) < 0 || ::pwrite(file_.get(), pid.data(), pid.size(), 0) < 0)
    log::warn("{}", withRemedy(systemError(errno, "cannot write {}", path)));
}

}  // namespace vdpa
