#include "deviceplugin/datapath/worker/front_end.h"

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "common/event_loop.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/worker/engines/call_timer.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/offered_features.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

using vhost_user::MessageSocket;
using vhost_user::ProtocolError;
using vhost_user::Session;

namespace {

constexpr int kMessagesAtOnce = 64;

}  // namespace

FrontEnd::FrontEnd(EventLoop& loop, const WorkerOptions& options, Engine& engine,
                   std::function<void()> changed)
    : loop_(loop), options_(options), engine_(engine), changed_(std::move(changed)) {}

FrontEnd::~FrontEnd() {
  if (connection_) engine_.release();
  const CallTimer timer;
  connection_.reset();
  socket_.reset();
}

void FrontEnd::listen() {
  socket_.emplace(options_.socket);
  socketWatch_ = EventLoop::Watch(loop_, socket_->fd(), EPOLLIN, [this](uint32_t) { accept(); });
  log::info("{}: listening on {}", options_.device, options_.socket.path);
}

std::optional<uint64_t> FrontEnd::unallocated() const {
  if (!connection_ || !connection_->session.device().memory) return std::nullopt;
  return connection_->session.device().memory->unallocated();
}

void FrontEnd::engineSettled() {
  answer();
  serve();
}

void FrontEnd::engineLink(bool up) {
  if (connection_) connection_->session.setLink(up);
}

void FrontEnd::accept() {
  while (UniqueFd socket = socket_->accept()) {
    // The application may have been restarted at once, before we noticed that the old one ended.
    if (connection_ && connection_->socket.hungUp()) {
      if (!waiting_) serve();  // its last messages may hold a reason to log
      endDisconnected();
    }
    if (!connection_) {
      begin(std::move(socket));
      continue;
    }
    {
      const CallTimer timer;  // it may have sent descriptors already
      socket.reset();
    }
    if (const auto suppressed = refusals_.admit()) {
      log::warn(
          "{}: refused a second connection on {}: a front-end is connected ({} such lines "
          "suppressed)",
          options_.device, options_.socket.path, *suppressed);
    }
  }
}

void FrontEnd::begin(UniqueFd socket) {
  connection_.emplace(Connection{MessageSocket(std::move(socket)),
                                 Session(offeredFeatures(options_, *engine_.limits()))});
  waiting_ = false;
  engine_.follow(&connection_->session.device());
  connection_->watch = EventLoop::Watch(loop_, connection_->socket.fd(), EPOLLIN,
                                        [this](uint32_t events) { onEvents(events); });
  log::debug("{}: a front-end connected", options_.device);
  whyEnded_.clear();
  changed_();
}

void FrontEnd::onEvents(uint32_t events) {
  if ((events & EPOLLOUT) && !connection_->socket.flush()) return endDisconnected();
  if (waiting_ && (events & (EPOLLHUP | EPOLLERR))) return endDisconnected();
  serve();
}

void FrontEnd::serve() {
  try {
    // A few at a time: a front-end that never stops sending must not keep the datapath waiting.
    for (int i = 0;
         i < kMessagesAtOnce && connection_ && !waiting_ && !connection_->socket.blocked(); ++i) {
      {
        const CallTimer timer;  // descriptors that are refused are closed
        auto message = connection_->socket.receive();
        if (!message) break;
        connection_->session.handle(std::move(*message));
      }
      waiting_ = true;
      engine_.update();
      if (engine_.settled()) answer();
    }
  } catch (const ProtocolError& error) {
    return end(error.what(), true);
  }
  if (connection_ && connection_->socket.ended()) return endDisconnected();
  watch();
  changed_();
}

void FrontEnd::answer() {
  if (!connection_ || !waiting_) return;
  waiting_ = false;
  auto reply = connection_->session.takeReply();
  if (reply && !connection_->socket.send(std::move(*reply))) endDisconnected();
}

// Reads nothing more while the engine catches up, and while the front-end leaves answers unread.
void FrontEnd::watch() {
  if (!connection_) return;
  uint32_t events = 0;
  if (connection_->socket.blocked())
    events = EPOLLOUT;
  else if (!waiting_)
    events = EPOLLIN;
  connection_->watch.change(events);
}

void FrontEnd::endDisconnected() {
  // QEMU disconnects silently if its VM's driver has agreed on more features before (vhost_net_init
  // in hw/net/vhost_net.c), and reconnects.
  if (connection_ && options_.behindSwitch && connection_->session.leftForFeatures())
    return end(
        fmt::format("the front-end disconnected after reading the offered features ({:#x}): if it "
                    "keeps reconnecting, its driver agreed on others before this node was "
                    "updated: restart the VM",
                    offeredFeatures(options_, *engine_.limits()).features),
        true);
  end("the front-end disconnected", false);
}

void FrontEnd::end(const std::string& reason, bool fault) {
  if (!connection_) return;
  const auto suppressed = fault ? faults_.admit() : std::optional<unsigned>(0);
  if (fault && suppressed)
    log::warn("{}: ended the front-end's session: {} ({} such lines suppressed)", options_.device,
              reason, *suppressed);
  else
    log::debug("{}: {}", options_.device, reason);
  connection_->watch.reset();
  engine_.release();
  {
    const CallTimer timer;
    connection_.reset();
  }
  waiting_ = false;
  whyEnded_ = reason;
  changed_();
}

}  // namespace vdpa::worker
