#include "deviceplugin/datapath/pod_files/device_directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/paths.h"

namespace vdpa::datapath {

// A device ID has no leading dot, so that the spare directory's name is free.
DeviceDirectory::DeviceDirectory(const Paths& paths, const std::string& deviceId)
    : path_(paths.device(deviceId)), spare_(paths.devices() + "/.spare-" + deviceId) {}

void DeviceDirectory::ensure() const {
  makeDirectory(path_, 0755);
}

void DeviceDirectory::renew() const {
  std::filesystem::remove_all(spare_);  // left over by a crash
  makeDirectory(spare_, 0755);
  if (::renameat2(AT_FDCWD, spare_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    std::filesystem::remove_all(spare_);
    return;
  }
  if (errno != ENOENT) checked(-1, "cannot exchange {} and {}", spare_, path_);
  checked(::rename(spare_.c_str(), path_.c_str()), "cannot rename {} to {}", spare_, path_);
}

void DeviceDirectory::remove() const {
  std::filesystem::remove_all(spare_);
  std::filesystem::remove_all(path_);
}

void removeDirectoriesExcept(const Paths& paths,
                             const std::function<bool(const std::string& id)>& known) {
  std::vector<std::filesystem::path> strays;
  for (const auto& entry : std::filesystem::directory_iterator(paths.devices())) {
    const std::string name = entry.path().filename();
    // A spare directory may be in use this moment; the device's next renew() removes it.
    if (!name.starts_with(".spare-") && !known(name)) strays.push_back(entry.path());
  }
  for (const auto& stray : strays) std::filesystem::remove_all(stray);
}

}  // namespace vdpa::datapath
