// The device-info files that Multus copies into a pod's network-status (Network Plumbing WG device
// information specification 1.1.0): <directory>/<resource with '-' for '/'>-<device>-device.json.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "deviceplugin/resources/offer.h"

namespace vdpa {

class DeviceInfoFiles {
 public:
  // The directory is made when it is first needed.
  explicit DeviceInfoFiles(std::string directory) : directory_(std::move(directory)) {}

  // From any thread. Rewrites only what is missing. Throws std::system_error naming the file.
  void write(const std::string& resource, const std::string& deviceId);

  // Removes the files of `resource` whose device is not among `kept`. Files of other programs'
  // resources stay.
  void removeOthers(const std::string& resource, const std::set<std::string>& kept);

 private:
  std::string pathOf(const std::string& resource, const std::string& deviceId) const;

  std::string directory_;
  std::mutex mutex_;
};

}  // namespace vdpa
