// The pod's end: its socket, and the life of a front-end that connects there. One at a time; what
// it says is for the Session to judge and for the engine to do.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/log_limiter.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/pod_socket.h"
#include "deviceplugin/datapath/worker/protocol/message_socket.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

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

  // Creates the pod's socket. To be called once the engine's limits are known. Throws
  // std::system_error.
  void listen();
  bool listening() const { return socket_.has_value(); }

  bool connected() const { return connection_.has_value(); }
  // Why the last session ended, until another begins; empty if none has.
  const std::string& whyEnded() const { return whyEnded_; }
  void forgetWhyEnded() { whyEnded_.clear(); }
  // Bytes of what the pod shares that it has not allocated; nothing while it shares none.
  std::optional<uint64_t> unallocated() const;

  // The engine has followed the last message: it is answered, and the next are read.
  void engineSettled();
  // The engine found a fault of the front-end's making.
  void engineRefused(const std::string& reason) { end(reason, true); }

 private:
  struct Connection {
    MessageSocket socket;
    Session session;
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
  bool waiting_ = false;  // the last message is answered when the engine has followed it
  std::string whyEnded_;
  LogLimiter faults_, refusals_;
};

}  // namespace vdpa::worker
