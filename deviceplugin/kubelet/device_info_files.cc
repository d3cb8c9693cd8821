// See the header.
#include "deviceplugin/kubelet/device_info_files.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/atomic_file.h"
#include "common/naming.h"

namespace vdpa {
namespace {

constexpr const char* kSuffix = "-device.json";

}  // namespace

std::string DeviceInfoFiles::pathOf(const std::string& resource,
                                    const std::string& deviceId) const {
  return directory_ + "/" + fileName(resource) + "-" + deviceId + kSuffix;
}

void DeviceInfoFiles::write(const std::string& resource, const std::string& deviceId) {
  std::lock_guard lock(mutex_);
  const std::string path = pathOf(resource, deviceId);
  if (::access(path.c_str(), F_OK) == 0) return;
  std::filesystem::create_directories(directory_);
  const nlohmann::json info{{"type", "vhost-user"},
                            {"version", "1.1.0"},
                            {"vhost-user", {{"mode", "client"}, {"path", podSocket(deviceId)}}}};
  writeFileAtomically(path, info.dump(), Durability::memory);
}

void DeviceInfoFiles::removeOthers(const std::string& resource, const std::set<std::string>& kept) {
  std::lock_guard lock(mutex_);
  std::error_code ignored;
  const std::string prefix = fileName(resource) + "-", suffix = kSuffix;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, ignored)) {
    const std::string name = entry.path().filename();
    if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) ||
        !name.ends_with(suffix))
      continue;
    const std::string id = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    // Ours are numbered ports of this very resource; "vdpa.io/nic" must not take the files of
    // "vdpa.io/nic-b".
    const std::string stem = resource.substr(resource.find('/') + 1) + "-";
    const bool ours = id.starts_with(stem) && id.size() > stem.size() &&
                      id.find_first_not_of("0123456789", stem.size()) == std::string::npos;
    if (ours && !kept.contains(id)) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace vdpa
