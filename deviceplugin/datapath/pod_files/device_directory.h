// The directory of a device, which the kubelet mounts into pods. A container keeps the inode it
// mounted, so a directory is never replaced while its owner lives, and always for a new owner.
#pragma once

#include <functional>
#include <string>

#include "common/paths.h"

namespace vdpa::datapath {

class DeviceDirectory {
 public:
  DeviceDirectory(const Paths& paths, const std::string& deviceId);

  const std::string& path() const { return path_; }
  // Makes an empty directory (0755) if there is none.
  void ensure() const;
  // Atomically replaces whatever is there with an empty directory with a new inode.
  void renew() const;
  void remove() const;

 private:
  std::string path_;
  std::string spare_;
};

// Removes everything beside the devices' directories that belongs to no device.
void removeDirectoriesExcept(const Paths& paths,
                             const std::function<bool(const std::string& id)>& known);

}  // namespace vdpa::datapath
