// The resources that this node has offered since it was started, kept beside the plugin's sockets:
// a plugin that was killed leaves a socket and device information that the next one, with another
// configuration, would not know to be its own.
#pragma once

#include <set>
#include <string>

namespace vdpa::plugin {

class OfferedResources {
 public:
  // A missing or unreadable file is an empty one.
  explicit OfferedResources(std::string path);

  const std::set<std::string>& names() const { return names_; }

  // Full names, such as "vdpa.io/nic". A file that can't be written is logged.
  void replace(std::set<std::string> names);

 private:
  std::string path_;
  std::set<std::string> names_;
};

}  // namespace vdpa::plugin
