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
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"
#include "deviceplugin/datapath/worker/offered_features.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/protocol/net_config.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

namespace vdpa::worker {
namespace {

constexpr std::chrono::milliseconds kQuiet{20};  // from any event to the next that a pod causes

}  // namespace

Instance::Instance(WorkerOptions options)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      signalsWatch_(loop_, signals_.get(), EPOLLIN, [this](uint32_t) { loop_.stop(); }),
      control_(
          options_.control,
          [this](const std::string& op, const nlohmann::json&) { return answer(op); },
          options_.controlFd),
      controlWatch_(loop_, control_.fd(), EPOLLIN, [this](uint32_t) { control_.process(); }),
      engine_(makeEngine()),
      front_(loop_, options_, *engine_, [this] { publish(); }),
      quiet_(loop_, [this] { publish(); }) {
  published_ = state();
}

std::unique_ptr<Engine> Instance::makeEngine() {
  Engine::Events events{[this](bool up, const std::string& reason) { onEngineState(up, reason); },
                        [this] { front_.engineSettled(); },
                        [this](const std::string& reason) { front_.engineRefused(reason); }};
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
  if (const auto unallocated = front_.unallocated()) hello["unallocated"] = *unallocated;
  return hello;
}

nlohmann::json Instance::state() const {
  nlohmann::json state{{"ready", front_.listening()},
                       {"front", !front_.connected()  ? "listening"
                                 : engine_->running() ? "running"
                                                      : "connected"},
                       {"engine", engine_->up() ? "up" : "down"},
                       {"reason", engine_->up() ? front_.whyEnded() : engineReason_}};
  if (!engine_->limits()) return state;
  const OfferedFeatures offered = offeredFeatures(options_, *engine_->limits());
  if (offered.config.mac != std::array<uint8_t, 6>()) state["mac"] = formatMac(offered.config.mac);
  state["mtu"] = offered.config.mtu;
  state["queue_pairs"] = offered.queuePairs;
  return state;
}

void Instance::publish() {
  nlohmann::json now = state();
  if (now == published_) return;
  // A pod may connect and disconnect as often as it likes.
  const bool ours = now["ready"] != published_["ready"] || now["engine"] != published_["engine"];
  if (quiet_.pending() && !ours) return;
  published_ = now;
  now["event"] = "state";
  control_.broadcast(now);
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
