// See the header.
#include "deviceplugin/datapath/network_namespace.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "common/unique_fd.h"

namespace vdpa {

NamespaceId namespaceAt(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct statfs system {};
  struct stat status {};
  // After `ip netns del`, or where the mount is missing, an ordinary file may be left.
  if (!file || ::fstatfs(file.get(), &system) < 0 || system.f_type != NSFS_MAGIC ||
      ::fstat(file.get(), &status) < 0)
    return {};
  return {status.st_dev, status.st_ino};
}

bool namespaceGone(const std::string& path, const NamespaceId& id) {
  return id != NamespaceId{} && namespaceAt(path) != id;
}

}  // namespace vdpa
