// The pod's side: its socket, and the front-end that connects there, one at a time. The Session
// checks its messages and the engine carries them out.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/log_limiter.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/pod_socket.h"

namespace vdpa::worker {

class FrontEnd {
 public:
  // `changed` is called when listening(), connected() or whyEnded() may have changed. References
  // outlive this.
  FrontEnd(EventLoop& loop, const WorkerOptions& options, Engine& engine,
           std::function<void()> changed);
  ~FrontEnd();
  FrontEnd(const FrontEnd&) = delete;
  FrontEnd& operator=(const FrontEnd&) = delete;

  // Creates the pod's socket. The engine must have reported its limits. Throws std::system_error.
  void listen();
  bool listening() const { return socket_.has_value(); }

  bool connected() const { return connection_.has_value(); }
  // Why the last session ended, until another begins; empty if none has.
  const std::string& whyEnded() const { return whyEnded_; }
  void forgetWhyEnded() { whyEnded_.clear(); }
  // Bytes of shared memory that the pod has not allocated; nothing while it shares none.
  std::optional<uint64_t> unallocated() const;

  // The engine has carried out the last message: answers it and reads on.
  void engineSettled();
  void engineLink(bool up);
  // The engine found a fault of the front-end.
  void engineRefused(const std::string& reason) { end(reason, true); }

 private:
  struct Connection {
    vhost_user::MessageSocket socket;
    vhost_user::Session session;
    EventLoop::Watch watch = {};
  };

  void accept();
  void begin(UniqueFd socket);
  void onEvents(uint32_t events);
  void serve();
  void answer();
  void watch();
  void endDisconnected();
  void end(const std::string& reason, bool fault);

  EventLoop& loop_;
  const WorkerOptions& options_;
  Engine& engine_;
  const std::function<void()> changed_;
  std::optional<PodSocket> socket_;
  EventLoop::Watch socketWatch_;
  std::optional<Connection> connection_;
  bool waiting_ = false;  // the last message is answered once the engine has carried it out
  std::string whyEnded_;
  LogLimiter faults_, refusals_;
};

}  // namespace vdpa::worker
