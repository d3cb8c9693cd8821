// The worker's parts, wired: the pod's socket and session on one side, the engine on the other, the
// datapath's control channel above.
#pragma once

#include <optional>

#include "common/control_channel.h"
#include "common/event_loop.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/log_limiter.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/pod_socket.h"
#include "deviceplugin/datapath/worker/protocol/message_socket.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

namespace vdpa::worker {

class Instance {
 public:
  // Opens everything but the pod's socket, which appears once the engine has said what it can do.
  explicit Instance(WorkerOptions options);
  ~Instance();

  // Until "stop" on the control channel, SIGTERM or SIGINT.
  void run();

 private:
  struct Front {
    MessageSocket socket;
    Session session;
  };

  nlohmann::json answer(const std::string& op);
  nlohmann::json state() const;
  void publish();

  void onEngineState(bool up, const std::string& reason);
  void openSocket();
  std::unique_ptr<Engine> makeEngine();
  const std::string& engineName() const {
    return options_.engine.empty() ? options_.vhostVdpa : options_.engine;
  }

  void acceptFronts();
  void startSession(UniqueFd socket);
  void onFront(uint32_t events);
  void serve();
  void answerFront();
  void watchFront();
  void endDisconnected();
  void endSession(const std::string& reason, bool fault);

  const WorkerOptions options_;
  EventLoop loop_;
  UniqueFd signals_;
  ControlServer control_;
  std::unique_ptr<Engine> engine_;
  std::optional<PodSocket> listener_;
  std::optional<Front> front_;
  bool waiting_ = false;  // the last message is answered when the engine has followed it
  std::string reason_;    // why the last session ended
  std::string engineReason_ = "it was not reached yet";  // why the engine is down
  nlohmann::json published_;
  bool quiet_ = false;
  LogLimiter faults_, refusals_;
};

}  // namespace vdpa::worker
