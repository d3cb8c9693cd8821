// Reports connections whose call eventfds block, from the pollers to the control side.
#pragma once

#include <array>
#include <atomic>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::vswitch {

class StalledCalls {
 public:
  StalledCalls();

  // For pollers: the connection `vid` (rte_vhost's handle) stalled the caller. Doesn't block.
  void report(int vid);

  // --- the control side
  // Readable after a report.
  int fd() const { return alarm_.get(); }
  // Returns the connections reported since the last call; clears fd().
  std::vector<int> take();
  // Call when the connection is gone: its handle will be reused.
  void forget(int vid);

 private:
  static constexpr size_t kMaxConnections = 1024;  // of rte_vhost

  UniqueFd alarm_;
  std::array<std::atomic<bool>, kMaxConnections> stalled_{};
};

}  // namespace vdpa::vswitch
