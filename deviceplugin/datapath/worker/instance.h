// Wires the worker's parts: the front-end on one side, the engine on the other, and the datapath's
// control channel.
#pragma once

#include <memory>
#include <string>

#include "common/control_channel.h"
#include "common/event_loop.h"
#include "common/log_limiter.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/front_end.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

class Instance {
 public:
  // Opens everything but the pod's socket, which appears once the engine has reported its limits.
  explicit Instance(WorkerOptions options);

  // Runs until "stop" on the control channel, SIGTERM or SIGINT.
  void run();

 private:
  control::Answer answer(const control::Request& request);
  control::WorkerStatus status() const;
  void publish();
  void logWaiting();

  void onEngineState(bool up, const std::string& reason);
  std::unique_ptr<Engine> makeEngine();
  const std::string& engineName() const {
    return options_.engine.empty() ? options_.vhostVdpa : options_.engine;
  }

  const WorkerOptions options_;
  EventLoop loop_;
  UniqueFd signals_;
  EventLoop::Watch signalsWatch_;
  ControlServer control_;
  EventLoop::Watch controlWatch_;
  std::unique_ptr<Engine> engine_;
  FrontEnd front_;
  std::string engineReason_ = "it has not been reached yet";  // why the engine is down
  std::string waiting_;  // Engine::whyWaiting(), as it was logged
  LogLimiter waits_;
  control::WorkerStatus published_;
  bool publishedUp_ = false;  // the engine, with published_
  EventLoop::Timer quiet_;    // while it runs, changes that the pod causes are not published
};

}  // namespace vdpa::worker
