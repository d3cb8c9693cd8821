#include "common/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

void writeAll(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    checked(static_cast<int>(written < 0 ? -1 : 0), "cannot write {}", path);
    content.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

void writeFileAtomically(const std::string& path, std::string_view content, Durability durability,
                         mode_t mode) {
  const std::string temporary = path + ".tmp";
  UniqueFd file(checked(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode),
      "cannot create {}", temporary));
  try {
    checked(::fchmod(file.get(), mode), "cannot set the mode of {}", temporary);
    writeAll(file.get(), content, temporary);
    if (durability != Durability::memory) checked(::fsync(file.get()), "cannot sync {}", temporary);
    checked(::rename(temporary.c_str(), path.c_str()), "cannot rename {} to {}", temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (durability == Durability::disk) {
    const std::string parent = directoryOf(path);
    UniqueFd directory(checked(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                               "cannot open {}", parent));
    checked(::fsync(directory.get()), "cannot sync {}", parent);
  }
}

std::string directoryOf(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string readFile(const std::string& path) {
  UniqueFd file(checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "cannot open {}", path));
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    checked(static_cast<int>(count < 0 ? -1 : 0), "cannot read {}", path);
    if (count == 0) return content;
    content.append(buffer, static_cast<size_t>(count));
  }
}

}  // namespace vdpa
