// How the worker of an attached device does.
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace vdpa::datapath {

struct WorkerState {
  enum class Phase {
    waiting,    // for its pod to connect
    connected,  // the pod has set up no rings yet
    running,    // packets pass
    failed,     // the worker or its engine is down
  };
  // As in datapath.proto, in the order of the values.
  static constexpr std::array<const char*, 4> kPhases{"waiting", "connected", "running", "failed"};

  Phase phase = Phase::waiting;
  std::string reason;  // of `failed`; else empty

  bool failed() const { return phase == Phase::failed; }
  // "running", "failed: <reason>", for messages and people.
  std::string text() const {
    const std::string word = kPhases[static_cast<size_t>(phase)];
    return failed() ? word + ": " + reason : word;
  }
};

}  // namespace vdpa::datapath
