// The device-info files that Multus copies into a pod's network-status (Network Plumbing WG device
// information specification 1.1.0): <directory>/<resource with '-' for '/'>-<device>-device.json.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {

class DeviceInfoFiles {
 public:
  // The directory is created on first use.
  explicit DeviceInfoFiles(std::string directory) : directory_(std::move(directory)) {}

  // From any thread. Writes only missing or changed files. Throws std::system_error naming the
  // file.
  void write(const std::string& resource, const Device& device);

  // Removes the files of `resource` whose device is not among `kept`. Files of other programs'
  // resources stay: a file is ours if its device ID is that of a port or a PCI function, or if this
  // object has written it.
  void removeOthers(const std::string& resource, const std::set<std::string>& kept);

 private:
  std::string pathOf(const std::string& resource, const std::string& deviceId) const;

  std::string directory_;
  Mutex mutex_;
  using Key = std::pair<std::string, std::string>;         // resource, device ID
  std::map<Key, std::string> written_ GUARDED_BY(mutex_);  // with the content
};

}  // namespace vdpa::plugin
