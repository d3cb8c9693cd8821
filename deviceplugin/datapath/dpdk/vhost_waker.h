// rte_vhost's thread looks at a new socket, and lets go of a closed one, only when something
// happens on one it has, or after a second: too long for a pod that waits. The bell is a socket
// that exists for something to happen on it.
#pragma once

#include <string>

namespace vdpa::dpdk {

// For the thread that registers sockets. Outlives them.
class VhostWaker {
 public:
  // `path`: where to make the socket, which nobody else uses. Throws std::runtime_error.
  explicit VhostWaker(std::string path);
  ~VhostWaker();
  VhostWaker(const VhostWaker&) = delete;
  VhostWaker& operator=(const VhostWaker&) = delete;

  // rte_vhost's thread looks again at what it has. Throws std::system_error.
  void ring();

 private:
  const std::string path_;
};

}  // namespace vdpa::dpdk
