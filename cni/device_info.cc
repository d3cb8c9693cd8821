// See the header.
#include "cni/device_info.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/atomic_file.h"

namespace vdpa::cni {

bool createDeviceInfo(const std::string& path, const std::string& socket) {
  if (::access(path.c_str(), F_OK) == 0) return false;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  const nlohmann::json info{{"type", "vhost-user"},
                            {"version", "1.1.0"},
                            {"vhost-user", {{"mode", "client"}, {"path", socket}}}};
  writeFileAtomically(path, info.dump(), Durability::memory);
  return true;
}

}  // namespace vdpa::cni
