// rte_vhost's thread starts polling a new socket, and releases a closed one, only after an event on
// a socket that it has, or after a second: too long for a waiting pod. The bell is a socket that
// exists to have events.
#pragma once

#include <string>

namespace vdpa::dpdk {

// For the thread that registers sockets. Outlives them.
class VhostWaker {
 public:
  // `path`: where to create the socket, for this purpose only. Throws std::runtime_error.
  explicit VhostWaker(std::string path);
  ~VhostWaker();
  VhostWaker(const VhostWaker&) = delete;
  VhostWaker& operator=(const VhostWaker&) = delete;

  // Makes rte_vhost's thread check its sockets. Throws std::system_error.
  void ring();

 private:
  const std::string path_;
};

}  // namespace vdpa::dpdk
