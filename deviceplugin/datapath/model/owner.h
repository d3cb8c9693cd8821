// The owner of an attachment: one interface of one container.
#pragma once

#include <string>
#include <utility>

namespace vdpa::datapath {

// Identifies an attachment: container ID and interface.
using AttachmentKey = std::pair<std::string, std::string>;

struct Owner {
  std::string containerId;
  std::string interface;
  std::string netns;  // path, as the CNI got it
  std::string network;
  std::string podNamespace;  // empty when the caller isn't Kubernetes
  std::string podName;
  std::string podUid;

  AttachmentKey key() const { return {containerId, interface}; }
};

// Checks that the required fields are valid. Throws RefusedError (invalidArgument).
void checkOwner(const Owner& owner);

// "default/pod-1 (container 0123456789ab…, interface net1)".
std::string describeOwner(const Owner& owner);

}  // namespace vdpa::datapath
