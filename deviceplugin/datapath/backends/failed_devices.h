// The devices of a backend that could not be started: why, and when each is retried. Its methods
// may be called from any thread.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "common/mutex.h"

namespace vdpa::datapath {

class FailedDevices {
 public:
  using Clock = std::chrono::steady_clock;

  // The first retry is due after `firstPause`; the pause doubles with each further failure, up to
  // `maxPause`.
  FailedDevices(std::chrono::seconds firstPause, std::chrono::seconds maxPause)
      : firstPause_(firstPause), maxPause_(maxPause) {}

  void add(const std::string& id, const std::string& reason);
  // True if it was one of them.
  bool remove(const std::string& id);
  bool due(const std::string& id) const;
  // Empty if it is not one of them.
  std::string reason(const std::string& id) const;

 private:
  struct Failure {
    std::string reason;
    std::chrono::seconds pause;
    Clock::time_point next;
  };

  const std::chrono::seconds firstPause_, maxPause_;
  mutable Mutex mutex_;
  std::map<std::string, Failure> failures_ GUARDED_BY(mutex_);  // by device ID
};

}  // namespace vdpa::datapath
