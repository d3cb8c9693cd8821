// Which pod holds which device, as reported by the kubelet's PodResources interface.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace grpc {
class Channel;
}

namespace vdpa {

struct PodDevice {
  std::string podNamespace;
  std::string podName;
  std::string container;
  std::string resource;  // "vdpa.io/nic"
  std::string deviceId;
};

// The answers are late and partial by nature (see podresources.proto). One thread at a time.
class PodResources {
 public:
  explicit PodResources(std::string socketPath) : socketPath_(std::move(socketPath)) {}

  // Every device of every active pod. Throws std::runtime_error naming the socket.
  std::vector<PodDevice> list(std::chrono::milliseconds timeout = std::chrono::seconds(2));

 private:
  const std::string socketPath_;
  // Dropped when a call fails: a channel kept over a kubelet restart needs seconds to recover.
  std::shared_ptr<grpc::Channel> channel_;
};

// The same, for a single call.
std::vector<PodDevice> listPodDevices(const std::string& socketPath);

}  // namespace vdpa
