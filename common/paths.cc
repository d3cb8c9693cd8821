#include "common/paths.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <set>
#include <string>

#include "common/errors.h"

namespace vdpa {

std::set<std::string> workersBelow(const Paths& paths) {
  std::set<std::string> devices;
  for (const auto& entry : std::filesystem::directory_iterator(paths.workers()))
    devices.insert(entry.path().stem());
  return devices;
}

void makeDirectory(const std::string& path, unsigned mode) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (::mkdir(parent.c_str(), 0755) < 0 && errno != EEXIST)
      checked(-1, "cannot create the directory {}", parent);
  }
  if (::mkdir(path.c_str(), mode) < 0 && errno != EEXIST)
    checked(-1, "cannot create the directory {}", path);
  checked(::chmod(path.c_str(), mode), "cannot set the mode of {}", path);
}

}  // namespace vdpa
