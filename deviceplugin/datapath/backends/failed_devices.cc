#include "deviceplugin/datapath/backends/failed_devices.h"

#include <algorithm>
#include <string>

#include "common/mutex.h"

namespace vdpa::datapath {

void FailedDevices::add(const std::string& id, const std::string& reason) {
  Lock lock(mutex_);
  const auto before = failures_.find(id);
  const auto pause =
      before == failures_.end() ? firstPause_ : std::min(2 * before->second.pause, maxPause_);
  failures_[id] = {reason, pause, Clock::now() + pause};
}

bool FailedDevices::remove(const std::string& id) {
  Lock lock(mutex_);
  return failures_.erase(id) > 0;
}

bool FailedDevices::due(const std::string& id) const {
  Lock lock(mutex_);
  const auto failure = failures_.find(id);
  return failure != failures_.end() && failure->second.next <= Clock::now();
}

std::string FailedDevices::reason(const std::string& id) const {
  Lock lock(mutex_);
  const auto failure = failures_.find(id);
  return failure == failures_.end() ? "" : failure->second.reason;
}

}  // namespace vdpa::datapath
