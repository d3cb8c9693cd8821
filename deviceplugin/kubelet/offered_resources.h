// The resources that this node has offered since it booted, kept in the run directory: a killed
// plugin leaves a socket and device information, which the next plugin could not recognise as its
// own under another configuration. The sockets in the kubelet's directory don't replace this list:
// a kubelet that starts removes them, a plugin that ends in order removes its own, and device
// information stays as long as a pod holds the device; its files are among those of other plugins.
#pragma once

#include <set>
#include <string>

namespace vdpa::plugin {

class OfferedResources {
 public:
  // A missing or unreadable file counts as empty.
  explicit OfferedResources(std::string path);

  const std::set<std::string>& names() const { return names_; }

  // Full names, such as "vdpa.io/nic". Logs a failed write.
  void replace(std::set<std::string> names);

 private:
  std::string path_;
  std::set<std::string> names_;
};

}  // namespace vdpa::plugin
