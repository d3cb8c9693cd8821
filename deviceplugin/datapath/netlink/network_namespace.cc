#include "deviceplugin/datapath/netlink/network_namespace.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <optional>
#include <string>

#include "common/errors.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/model/namespace_id.h"

namespace vdpa::datapath {

namespace {

// Zeros if `path` is not a namespace; nothing if that can't be determined.
std::optional<NamespaceId> look(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file && (errno == ENOENT || errno == ENOTDIR)) return NamespaceId{};
  struct statfs system {};
  struct stat status {};
  if (!file || ::fstatfs(file.get(), &system) < 0 || ::fstat(file.get(), &status) < 0) {
    log::warn("{}", systemError(errno, "cannot see the network namespace {}", path).what());
    return std::nullopt;
  }
  // After `ip netns del`, or if the mount is missing, an ordinary file may be left.
  if (system.f_type != NSFS_MAGIC) return NamespaceId{};
  return NamespaceId{status.st_dev, status.st_ino};
}

}  // namespace

NamespaceId namespaceAt(const std::string& path) {
  return look(path).value_or(NamespaceId{});
}

bool namespaceGone(const std::string& path, const NamespaceId& id) {
  return id != NamespaceId{} && look(path).value_or(id) != id;
}

}  // namespace vdpa::datapath
