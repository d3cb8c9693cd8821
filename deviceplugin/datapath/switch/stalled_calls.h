// The way from the pollers to the control side for connections whose call eventfds block.
#pragma once

#include <array>
#include <atomic>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::vswitch {

class StalledCalls {
 public:
  StalledCalls();

  // From a poller: the connection `vid` (rte_vhost's handle) stalled it. Doesn't block.
  void report(int vid);

  // --- the control side
  // Readable after a report.
  int fd() const { return alarm_.get(); }
  // What was reported since the last call; clears fd().
  std::vector<int> take();
  // The connection is gone, and its handle will be another's.
  void forget(int vid);

 private:
  static constexpr size_t kMaxConnections = 1024;  // of rte_vhost

  UniqueFd alarm_;
  std::array<std::atomic<bool>, kMaxConnections> stalled_{};
};

}  // namespace vdpa::vswitch
