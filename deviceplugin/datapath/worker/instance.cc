#include "deviceplugin/datapath/worker/instance.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_stream.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"
#include "deviceplugin/datapath/worker/offered_features.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

using vhost_user::OfferedFeatures;

namespace {

constexpr std::chrono::milliseconds kQuiet{20};  // from any event to the next that a pod causes

}  // namespace

Instance::Instance(WorkerOptions options)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      signalsWatch_(loop_, signals_.get(), EPOLLIN, [this](uint32_t) { loop_.stop(); }),
      control_(
          options_.control,
          [this](const control::Request& request, Descriptors&) { return answer(request); },
          options_.controlFd),
      controlWatch_(loop_, control_.fd(), EPOLLIN, [this](uint32_t) { control_.process(); }),
      engine_(makeEngine()),
      front_(loop_, options_, *engine_, [this] { publish(); }),
      quiet_(loop_, [this] { publish(); }) {
  published_ = status();
}

std::unique_ptr<Engine> Instance::makeEngine() {
  Engine::Events events{[this](bool up, const std::string& reason) { onEngineState(up, reason); },
                        [this] { front_.engineSettled(); },
                        [this](const std::string& reason) { front_.engineRefused(reason); },
                        [this](bool up) { front_.engineLink(up); }};
  if (options_.vhostVdpa.empty())
    return std::make_unique<VhostUserEngine>(loop_, options_.engine, std::move(events));
  return std::make_unique<VhostVdpaEngine>(loop_, options_.vhostVdpa, options_.inode,
                                           options_.queuePairs, std::move(events));
}

void Instance::run() {
  loop_.run();
}

control::Answer Instance::answer(const control::Request& request) {
  control::Answer answer;
  if (request.has_stop()) {
    loop_.stop();
    return answer;
  }
  if (!request.has_hello())
    throw std::invalid_argument(fmt::format("unknown operation '{}'; expected hello or stop",
                                            operationName(request.operation_case())));
  auto& hello = *answer.mutable_hello();
  hello.set_program("vdpa-worker");
  hello.set_version(programVersion());
  hello.set_pid(::getpid());
  auto& worker = *hello.mutable_worker();
  worker.set_device(options_.device);
  worker.set_socket(options_.socket.path);
  *worker.mutable_status() = status();
  if (const auto unallocated = front_.unallocated()) worker.set_unallocated(*unallocated);
  return answer;
}

control::WorkerStatus Instance::status() const {
  control::WorkerStatus status;
  status.set_ready(front_.listening());
  status.set_front(!front_.connected()  ? control::WorkerStatus::LISTENING
                   : engine_->running() ? control::WorkerStatus::RUNNING
                                        : control::WorkerStatus::CONNECTED);
  const std::string waiting = engine_->whyWaiting();
  // vdpa-datapath, also of 0.1.0, shows a reason only for an engine that is down.
  status.set_engine_up(engine_->up() && waiting.empty());
  status.set_reason(!engine_->up()     ? engineReason_
                    : !waiting.empty() ? waiting
                                       : front_.whyEnded());
  if (!engine_->limits()) return status;
  const OfferedFeatures offered = offeredFeatures(options_, *engine_->limits());
  auto& limits = *status.mutable_limits();
  if (const auto& mac = offered.config.mac; !mac.isZero()) limits.set_mac(mac.text());
  limits.set_mtu(offered.config.mtu);
  limits.set_queue_pairs(offered.queuePairs);
  return status;
}

void Instance::logWaiting() {
  std::string waiting = engine_->whyWaiting();
  if (waiting == waiting_) return;
  waiting_ = std::move(waiting);
  if (waiting_.empty()) return;
  if (const auto suppressed = waits_.admit())
    log::warn("{}: the pod's packets wait: {} ({} such lines suppressed)", options_.device,
              waiting_, *suppressed);
}

void Instance::publish() {
  logWaiting();
  auto now = status();
  if (now.SerializeAsString() == published_.SerializeAsString()) return;
  // A pod may connect and disconnect as often as it likes.
  const bool ours = now.ready() != published_.ready() || engine_->up() != publishedUp_;
  if (quiet_.pending() && !ours) return;
  published_ = std::move(now);
  publishedUp_ = engine_->up();
  control::Event event;
  *event.mutable_worker() = published_;
  control_.broadcast(event);
  quiet_.startWithin(kQuiet);
}

void Instance::onEngineState(bool up, const std::string& reason) {
  engineReason_ = reason;
  if (up) {
    front_.forgetWhyEnded();
    log::info("{}: the engine at {} is up", options_.device, engineName());
    if (!front_.listening()) front_.listen();
  } else {
    log::warn("{}: the engine at {} is down: {}", options_.device, engineName(), reason);
  }
  publish();
}

}  // namespace vdpa::worker
