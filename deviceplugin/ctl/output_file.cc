#include "deviceplugin/ctl/output_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa::ctl {
namespace {

struct stat statusOf(const UniqueFd& fd, const std::string& file) {
  struct stat status {};
  checked(::fstat(fd.get(), &status), "cannot write {}", file);
  return status;
}

}  // namespace

UniqueFd openOutputFile(const std::string& file) {
  constexpr int kFlags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
  UniqueFd fd(::open(file.c_str(), kFlags | O_CREAT | O_NOFOLLOW, 0600));
  if (!fd && errno == ELOOP) {  // such as /dev/stdout, and a shell's >(command)
    fd = UniqueFd(checked(::open(file.c_str(), kFlags), "cannot write {}", file));
    if (S_ISREG(statusOf(fd, file).st_mode))
      throw std::runtime_error(
          fmt::format("cannot write {}: it is a link; name the file itself", file));
  }
  if (!fd) throw systemError(errno, "cannot write {}", file);
  const auto status = statusOf(fd, file);
  if (!S_ISREG(status.st_mode)) return fd;
  if (status.st_uid != ::geteuid())
    throw std::runtime_error(
        fmt::format("cannot write {}: it belongs to user {}; name another file, or remove this one",
                    file, status.st_uid));
  checked(::fchmod(fd.get(), 0600), "cannot set the mode of {}", file);
  return fd;
}

}  // namespace vdpa::ctl
