#include "deviceplugin/datapath/pmd/pmd.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "common/version.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {

Pmd::Pmd(PmdOptions options)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      removed_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")),
      eal_(options_, log_),
      device_(options_, log_,
              {[this](const std::string& reason) { session_.started(reason); },
               [this] { ::eventfd_write(removed_.get(), 1); }}),
      session_(options_.socket),
      control_(
          options_.control,
          [this](const std::string& operation, const nlohmann::json&) { return handle(operation); },
          options_.controlFd) {
  session_.open(device_.handle());
  published_ = state();
}

void Pmd::run() {
  log::info("{}: {} queue pairs, features {:#x}, serving {} with DPDK's {} driver", options_.device,
            device_.queuePairs(), device_.features(), options_.socket, options_.driver);
  while (!stop_) {
    pollfd fds[] = {{signals_.get(), POLLIN, 0},
                    {control_.fd(), POLLIN, 0},
                    {session_.fd(), POLLIN, 0},
                    {session_.memoryFd(), POLLIN, 0},
                    {removed_.get(), POLLIN, 0}};
    if (::poll(fds, std::size(fds), untilOpening()) < 0 && errno != EINTR)
      throw systemError(errno, "cannot poll");
    if (fds[0].revents) stop_ = true;
    if (fds[1].revents) control_.process();
    if (fds[4].revents) giveBack();
    if (fds[3].revents) session_.memoryGone();
    if (fds[2].revents || fds[3].revents) follow(session_.take());
    if (closedUntil_ && Clock::now() >= *closedUntil_) openAgain();
    publish();
  }
}

void Pmd::giveBack() {
  session_.close();
  connected_ = false;
  reason_ = fmt::format("{} is being removed from this node", options_.device);
  publish();
  throw std::runtime_error(reason_);
}

void Pmd::follow(const VhostSession::State& session) {
  connected_ = session.connected;
  if (connected_) {
    pause_ = kFirstPause;
    reason_.clear();
  }
  if (session.failure.empty()) return;
  session_.close();
  connected_ = false;
  reason_ = session.failure;
  closedUntil_ = Clock::now() + pause_;
  log::error("{}: {}; the worker's connection is closed, the next is accepted in {} ms",
             options_.device, reason_, pause_.count());
  pause_ = std::min(pause_ * 2, kMaxPause);
}

void Pmd::openAgain() {
  closedUntil_.reset();
  session_.open(device_.handle());
}

int Pmd::untilOpening() const {
  if (!closedUntil_) return -1;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*closedUntil_ - Clock::now());
  return static_cast<int>(std::max<int64_t>(0, wait.count()));
}

nlohmann::json Pmd::state() const {
  return {{"ready", session_.isOpen()}, {"connected", connected_}, {"reason", reason_}};
}

void Pmd::publish() {
  nlohmann::json now = state();
  if (now == published_) return;
  published_ = now;
  now["event"] = "state";
  control_.broadcast(now);
}

nlohmann::json Pmd::handle(const std::string& operation) {
  if (operation == "stop") {
    stop_ = true;
    return nlohmann::json::object();
  }
  if (operation == "stats") return {{"queues", device_.stats()}};
  if (operation != "hello")
    throw std::invalid_argument(
        fmt::format("unknown op '{}'; expected hello, stats or stop", operation));
  nlohmann::json hello = state();
  hello["program"] = "vdpa-pmd";
  hello["version"] = programVersion();
  hello["pid"] = ::getpid();
  hello["device"] = options_.device;
  hello["driver"] = options_.driver;
  hello["socket"] = options_.socket;
  hello["queue_pairs"] = device_.queuePairs();
  hello["features"] = device_.features();
  return hello;
}

}  // namespace vdpa::pmd
