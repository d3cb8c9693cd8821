#include "deviceplugin/datapath/dpdk/vhost_waker.h"

#include <fmt/core.h>
#include <rte_vhost.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/unix_socket.h"

namespace vdpa::dpdk {

VhostWaker::VhostWaker(std::string path) : path_(std::move(path)) {
  static const rte_vhost_device_ops none{};
  const auto start = [](const std::string& socket, uint64_t flags) {
    return rte_vhost_driver_register(socket.c_str(), flags) == 0 &&
           rte_vhost_driver_callback_register(socket.c_str(), &none) == 0 &&
           rte_vhost_driver_start(socket.c_str()) == 0;
  };
  ::unlink(path_.c_str());
  if (!start(path_, 0))
    throw std::runtime_error(fmt::format("cannot register the socket {}", path_));
  // The thread may already be waiting its first second, without the bell. Connecting as a client
  // through rte_vhost wakes it at once.
  const std::filesystem::path bell(path_);
  const std::string visitor = bell.parent_path() / "." / bell.filename();  // same path, respelled
  if (!start(visitor, RTE_VHOST_USER_CLIENT | RTE_VHOST_USER_NO_RECONNECT))
    throw std::runtime_error(fmt::format("cannot connect to the socket {}", path_));
  rte_vhost_driver_unregister(visitor.c_str());
}

VhostWaker::~VhostWaker() {
  rte_vhost_driver_unregister(path_.c_str());
  ::unlink(path_.c_str());
}

void VhostWaker::ring() {
  connectUnix(path_);
}

}  // namespace vdpa::dpdk
