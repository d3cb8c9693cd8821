#include "deviceplugin/datapath/pmd/pmd.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_stream.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "deviceplugin/datapath/pmd/hello.h"
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
          [this](const control::Request& request, Descriptors&) { return answer(request); },
          options_.controlFd) {
  session_.open(device_.handle());
  published_ = status();
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

control::PmdStatus Pmd::status() const {
  control::PmdStatus status;
  status.set_ready(session_.isOpen());
  status.set_connected(connected_);
  status.set_reason(validText(reason_));  // it may quote the driver
  return status;
}

void Pmd::publish() {
  auto now = status();
  if (now.SerializeAsString() == published_.SerializeAsString()) return;
  published_ = std::move(now);
  control::Event event;
  *event.mutable_pmd() = published_;
  control_.broadcast(event);
}

control::Answer Pmd::answer(const control::Request& request) {
  control::Answer answer;
  if (request.has_stop()) {
    stop_ = true;
    return answer;
  }
  if (request.has_stats()) {
    *answer.mutable_pmd_stats() = device_.stats();
    return answer;
  }
  if (!request.has_hello())
    throw std::invalid_argument(fmt::format("unknown operation '{}'; expected hello, stats or stop",
                                            operationName(request.operation_case())));
  *answer.mutable_hello() = helloOf(options_);
  auto& pmd = *answer.mutable_hello()->mutable_pmd();
  *pmd.mutable_status() = status();
  pmd.set_queue_pairs(device_.queuePairs());
  pmd.set_features(device_.features());
  return answer;
}

}  // namespace vdpa::pmd
