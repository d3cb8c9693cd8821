// The directory of a device, which the kubelet mounts into pods. A container keeps the inode it
// mounted: so an owner's directory is never made anew while it lives, and a new owner's always is.
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
  // Puts an empty directory with a new inode in the place of what is there, in one step.
  void renew() const;
  void remove() const;

 private:
  std::string path_;
  std::string spare_;
};

// Removes what is in the place of a device's directory but belongs to none.
void removeDirectoriesExcept(const Paths& paths,
                             const std::function<bool(const std::string& id)>& known);

}  // namespace vdpa::datapath
