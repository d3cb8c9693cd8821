#include "deviceplugin/datapath/worker/engines/engine_link.h"

#include <sys/epoll.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::worker {

using vhost_user::encode;
using vhost_user::kNeedReplyFlag;
using vhost_user::kReplyFlag;
using vhost_user::kVersion;
using vhost_user::Message;
using vhost_user::nameOf;
using vhost_user::ProtocolError;
using vhost_user::Request;
using vhost_user::SharedFd;

namespace {

// The engine is a program of ours that answers in microseconds, unless a thousand ports come up at
// once.
constexpr std::chrono::seconds kDeadline{5};

}  // namespace

EngineLink::EngineLink(EventLoop& loop, UniqueFd socket, Lost lost, Idle idle)
    : socket_(std::move(socket)),
      lost_(std::move(lost)),
      idle_(std::move(idle)),
      watch_(loop, socket_.fd(), EPOLLIN, [this](uint32_t events) { onEvent(events); }),
      deadline_(loop,
                [this] {
                  fail(fmt::format("the engine has not answered {} for {} s",
                                   nameOf(open_.front().request), kDeadline.count()));
                }),
      failing_(loop, [this] {
        const Lost lost = lost_;  // outlives the link
        const std::string failure = failure_;
        lost(failure, refused_);
      }) {}

EngineLink::~EngineLink() {
  *alive_ = false;
}

void EngineLink::ask(Request request, const void* payload, size_t size, size_t answerSize,
                     Answered answered) {
  open_.push_back({request, answerSize, std::move(answered)});
  send(request, kVersion, payload, size, {});
  startDeadline();
}

void EngineLink::tell(Request request, const void* payload, size_t size,
                      std::vector<SharedFd> descriptors) {
  send(request, kVersion, payload, size, std::move(descriptors));
}

void EngineLink::set(Request request, const void* payload, size_t size,
                     std::vector<SharedFd> descriptors) {
  open_.push_back({request, sizeof(uint64_t), [this, request](const Message& answer) {
                     if (answer.as<uint64_t>() != 0)
                       fail(fmt::format("the engine refused {}", nameOf(request)), true);
                   }});
  send(request, kVersion | kNeedReplyFlag, payload, size, std::move(descriptors));
  startDeadline();
}

void EngineLink::send(Request request, uint32_t flags, const void* payload, size_t size,
                      std::vector<SharedFd> descriptors) {
  if (!socket_.send(encode(request, flags, payload, size), std::move(descriptors)))
    return fail("the engine closed its connection");
  if (watch_) watch_.change(socket_.blocked() ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void EngineLink::onEvent(uint32_t events) {
  if (events & EPOLLOUT) {
    if (!socket_.flush()) return fail("the engine closed its connection");
    watch_.change(socket_.blocked() ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  const auto alive = alive_;
  try {
    while (auto message = socket_.receive()) {
      onAnswer(*message);
      if (!*alive) return;
    }
  } catch (const ProtocolError& error) {
    return fail(fmt::format("the engine's answer is not vhost-user: {}", error.what()));
  }
  if (socket_.ended()) fail("the engine closed its connection");
}

void EngineLink::onAnswer(const Message& answer) {
  if (!watch_) return;
  if (open_.empty() || open_.front().request != answer.request ||
      open_.front().answerSize != answer.payload.size() || !(answer.flags & kReplyFlag))
    return fail(fmt::format("the engine sent an unexpected {} of {} bytes", nameOf(answer.request),
                            answer.payload.size()));
  const Open open = std::move(open_.front());
  open_.pop_front();
  startDeadline();
  const auto alive = alive_;
  open.answered(answer);
  if (!*alive || !watch_ || !open_.empty()) return;
  const Idle idle = idle_;  // outlives the link
  idle();
}

void EngineLink::startDeadline() {
  if (open_.empty())
    deadline_.cancel();
  else
    deadline_.start(kDeadline);
}

// Reports from the loop, so that no caller is destroyed during its call.
void EngineLink::fail(std::string reason, bool refused) {
  if (!watch_) return;
  watch_.reset();
  failure_ = std::move(reason);
  refused_ = refused;
  failing_.start(std::chrono::milliseconds(0));
}

}  // namespace vdpa::worker
