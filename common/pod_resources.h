// Which pod holds which device, as the kubelet's PodResources interface tells it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace vdpa {

struct PodDevice {
  std::string podNamespace;
  std::string podName;
  std::string container;
  std::string resource;  // "vdpa.io/nic"
  std::string deviceId;
};

// Every device of every active pod. Opens a channel of its own: one kept over a kubelet restart
// needs seconds to come back. Late and partial by nature (see podresources.proto). Throws
// std::runtime_error naming the socket.
std::vector<PodDevice> listPodDevices(const std::string& socketPath,
                                      std::chrono::milliseconds timeout = std::chrono::seconds(2));

}  // namespace vdpa
