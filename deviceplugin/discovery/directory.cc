#include "deviceplugin/discovery/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace vdpa::plugin {
namespace {

constexpr size_t kMaxBytes = 4096;  // of an attribute: a page

}  // namespace

Directory::Directory(const std::string& path)
    : fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), error_(fd_ ? 0 : errno) {}

Directory::Directory(const Directory& parent, const std::string& name)
    : fd_(parent.isOpen()
              ? ::openat(parent.fd_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
              : -1),
      error_(fd_               ? 0
             : parent.isOpen() ? errno
                               : parent.error_) {}

void Directory::forEach(
    const std::function<void(const std::string& name, bool isLink)>& entry) const {
  // Not readdir(), which would open the directory again and make four more system calls.
  if (!isOpen()) return;
  alignas(dirent64) char buffer[32768];
  for (ssize_t size; (size = ::getdents64(fd_.get(), buffer, sizeof buffer)) > 0;)
    for (ssize_t at = 0; at < size;) {
      const auto* found = reinterpret_cast<const dirent64*>(buffer + at);
      at += found->d_reclen;
      const std::string name = found->d_name;
      if (name != "." && name != "..") entry(name, found->d_type == DT_LNK);
    }
}

std::optional<std::string> Directory::read(const std::string& name) const {
  const UniqueFd file(::openat(fd_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return std::nullopt;
  char content[kMaxBytes];
  const ssize_t size = ::read(file.get(), content, sizeof content);
  if (size < 0) return std::nullopt;
  const bool line = size > 0 && content[size - 1] == '\n';
  return std::string(content, static_cast<size_t>(line ? size - 1 : size));
}

std::optional<std::string> Directory::link(const std::string& name) const {
  char target[kMaxBytes];
  const ssize_t size = ::readlinkat(fd_.get(), name.c_str(), target, sizeof target);
  if (size < 0) return std::nullopt;
  return std::string(target, static_cast<size_t>(size));
}

std::string_view lastPart(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace vdpa::plugin
