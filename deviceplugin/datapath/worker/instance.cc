#include "deviceplugin/datapath/worker/instance.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "common/log.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/datapath/worker/offered_features.h"
#include "deviceplugin/datapath/worker/engines/call_timer.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/protocol/net_config.h"
#include "deviceplugin/datapath/worker/protocol/protocol_error.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

namespace vdpa::worker {
namespace {

constexpr int kMessagesAtOnce = 64;
constexpr std::chrono::milliseconds kQuiet{20};  // after an event, before one of the pod's making

}  // namespace

Instance::Instance(WorkerOptions options)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      control_(options_.control,
               [this](const std::string& op, const nlohmann::json&) { return answer(op); }),
      engine_(makeEngine()) {
  loop_.watch(signals_.get(), EPOLLIN, [this](uint32_t) { loop_.stop(); });
  loop_.watch(control_.fd(), EPOLLIN, [this](uint32_t) { control_.process(); });
  published_ = state();
}

Instance::~Instance() {
  if (front_) engine_->release();
  const CallTimer timer;
  front_.reset();
  listener_.reset();
}

std::unique_ptr<Engine> Instance::makeEngine() {
  Engine::Events events{[this](bool up, const std::string& reason) { onEngineState(up, reason); },
                        [this] {
                          answerFront();
                          serve();
                        },
                        [this](const std::string& reason) { endSession(reason, true); }};
  if (options_.vhostVdpa.empty())
    return std::make_unique<VhostUserEngine>(loop_, options_.engine, std::move(events));
  return std::make_unique<VhostVdpaEngine>(loop_, options_.vhostVdpa, options_.inode,
                                           options_.queuePairs, std::move(events));
}

void Instance::run() {
  loop_.run();
}

nlohmann::json Instance::answer(const std::string& op) {
  if (op == "stop") {
    loop_.stop();
    return nlohmann::json::object();
  }
  if (op != "hello")
    throw std::invalid_argument(fmt::format("unknown op '{}'; expected hello or stop", op));
  nlohmann::json hello = state();
  hello["program"] = "vdpa-worker";
  hello["version"] = programVersion();
  hello["pid"] = ::getpid();
  hello["device"] = options_.device;
  hello["socket"] = options_.socket.path;
  if (front_ && front_->session.device().memory)
    hello["unallocated"] = front_->session.device().memory->unallocated();
  return hello;
}

nlohmann::json Instance::state() const {
  nlohmann::json state{{"ready", listener_.has_value()},
                       {"front", !front_              ? "listening"
                                 : engine_->running() ? "running"
                                                      : "connected"},
                       {"engine", engine_->up() ? "up" : "down"},
                       {"reason", engine_->up() ? reason_ : engineReason_}};
  if (!engine_->limits()) return state;
  const OfferedFeatures offered = offeredFeatures(options_, *engine_->limits());
  if (offered.config.mac != std::array<uint8_t, 6>())
    state["mac"] = formatMac(offered.config.mac);
  state["mtu"] = offered.config.mtu;
  state["queue_pairs"] = offered.queuePairs;
  return state;
}

void Instance::publish() {
  nlohmann::json now = state();
  if (now == published_) return;
  // A front-end comes and goes as often as the pod likes.
  const bool ours = now["ready"] != published_["ready"] || now["engine"] != published_["engine"];
  if (quiet_ && !ours) return;
  published_ = now;
  now["event"] = "state";
  control_.broadcast(now);
  if (std::exchange(quiet_, true)) return;
  loop_.after(kQuiet, [this] {
    quiet_ = false;
    publish();
  });
}

void Instance::onEngineState(bool up, const std::string& reason) {
  engineReason_ = reason;
  if (up) {
    reason_.clear();
    log::info("{}: the engine at {} is up", options_.device, engineName());
    if (!listener_) openSocket();
  } else {
    log::warn("{}: the engine at {} is down: {}", options_.device, engineName(), reason);
  }
  publish();
}

void Instance::openSocket() {
  listener_.emplace(options_.socket);
  loop_.watch(listener_->fd(), EPOLLIN, [this](uint32_t) { acceptFronts(); });
  log::info("{}: listening on {}", options_.device, options_.socket.path);
}

void Instance::acceptFronts() {
  while (UniqueFd socket = listener_->accept()) {
    // An application that was started again at once: the old one's end may not have been seen yet.
    if (front_ && front_->socket.hungUp()) {
      if (!waiting_) serve();  // its last words, which may be a reason to log
      endDisconnected();
    }
    if (!front_) {
      startSession(std::move(socket));
      continue;
    }
    {
      const CallTimer timer;  // it may have sent something already
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

void Instance::startSession(UniqueFd socket) {
  front_.emplace(Front{MessageSocket(std::move(socket)),
                       Session(offeredFeatures(options_, *engine_->limits()))});
  waiting_ = false;
  engine_->follow(&front_->session.device());
  loop_.watch(front_->socket.fd(), EPOLLIN, [this](uint32_t events) { onFront(events); });
  log::debug("{}: a front-end connected", options_.device);
  reason_.clear();
  publish();
}

void Instance::onFront(uint32_t events) {
  if ((events & EPOLLOUT) && !front_->socket.flush()) return endDisconnected();
  if (waiting_ && (events & (EPOLLHUP | EPOLLERR))) return endDisconnected();
  serve();
}

void Instance::serve() {
  try {
    // A few at a time: a front-end that never stops talking does not keep the datapath waiting.
    for (int i = 0; i < kMessagesAtOnce && front_ && !waiting_ && !front_->socket.blocked(); ++i) {
      {
        const CallTimer timer;  // descriptors that are refused are closed
        auto message = front_->socket.receive();
        if (!message) break;
        front_->session.handle(std::move(*message));
      }
      waiting_ = true;
      engine_->update();
      if (engine_->settled()) answerFront();
    }
  } catch (const ProtocolError& error) {
    return endSession(error.what(), true);
  }
  if (front_ && front_->socket.ended()) return endDisconnected();
  watchFront();
  publish();
}

void Instance::answerFront() {
  if (!front_ || !waiting_) return;
  waiting_ = false;
  auto reply = front_->session.takeReply();
  if (reply && !front_->socket.send(std::move(*reply))) endDisconnected();
}

// While the engine follows, and while the front-end leaves answers unread, nothing more is read
// from it.
void Instance::watchFront() {
  if (!front_) return;
  uint32_t events = 0;
  if (front_->socket.blocked())
    events = EPOLLOUT;
  else if (!waiting_)
    events = EPOLLIN;
  loop_.change(front_->socket.fd(), events);
}

void Instance::endDisconnected() {
  // QEMU leaves without a word when the driver of its VM has agreed on more before (vhost_net_init
  // in hw/net/vhost_net.c), and comes again.
  if (front_ && options_.behindSwitch && front_->session.leftForFeatures())
    return endSession(
        fmt::format("the front-end left when it had read the features on offer ({:#x}): if it "
                    "comes again and again, its driver agreed on others before this node was "
                    "updated: restart the VM",
                    offeredFeatures(options_, *engine_->limits()).features),
        true);
  endSession("the front-end disconnected", false);
}

void Instance::endSession(const std::string& reason, bool fault) {
  if (!front_) return;
  const auto suppressed = fault ? faults_.admit() : std::optional<unsigned>(0);
  if (fault && suppressed)
    log::warn("{}: ended the front-end's session: {} ({} such lines suppressed)", options_.device,
              reason, *suppressed);
  else
    log::debug("{}: {}", options_.device, reason);
  loop_.forget(front_->socket.fd());
  engine_->release();
  {
    const CallTimer timer;
    front_.reset();
  }
  waiting_ = false;
  reason_ = reason;
  publish();
}

}  // namespace vdpa::worker
