#include "deviceplugin/datapath/worker/engines/engine_link.h"

#include <sys/epoll.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/worker/protocol/message.h"
#include "deviceplugin/datapath/worker/protocol/protocol_error.h"
#include "deviceplugin/datapath/worker/protocol/vhost_user_protocol.h"

namespace vdpa::worker {
namespace {

// The engine is a program of ours that answers in microseconds, unless a thousand ports come up at
// once.
constexpr std::chrono::seconds kDeadline{5};

}  // namespace

EngineLink::EngineLink(EventLoop& loop, UniqueFd socket, Lost lost, Idle idle)
    : loop_(loop), socket_(std::move(socket)), lost_(std::move(lost)), idle_(std::move(idle)) {
  loop_.watch(socket_.fd(), EPOLLIN, [this](uint32_t events) { onEvent(events); });
}

EngineLink::~EngineLink() {
  *alive_ = false;
  loop_.forget(socket_.fd());
  loop_.cancel(deadline_);
  loop_.cancel(failing_);
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
  loop_.change(socket_.fd(), socket_.blocked() ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void EngineLink::onEvent(uint32_t events) {
  if (failing_ != 0) return;
  if (events & EPOLLOUT) {
    if (!socket_.flush()) return fail("the engine closed its connection");
    loop_.change(socket_.fd(), socket_.blocked() ? EPOLLIN | EPOLLOUT : EPOLLIN);
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
  if (failing_ != 0) return;
  if (open_.empty() || open_.front().request != answer.request ||
      open_.front().answerSize != answer.payload.size() || !(answer.flags & kReplyFlag))
    return fail(fmt::format("the engine sent an unexpected {} of {} bytes", nameOf(answer.request),
                            answer.payload.size()));
  const Open open = std::move(open_.front());
  open_.pop_front();
  startDeadline();
  const auto alive = alive_;
  open.answered(answer);
  if (!*alive || failing_ != 0 || !open_.empty()) return;
  const Idle idle = idle_;  // outlives the link
  idle();
}

void EngineLink::startDeadline() {
  loop_.cancel(deadline_);
  if (open_.empty()) return;
  deadline_ = loop_.after(kDeadline, [this] {
    fail(fmt::format("the engine has not answered {} for {} s", nameOf(open_.front().request),
                     kDeadline.count()));
  });
}

// From the loop, so that no caller finds itself destroyed.
void EngineLink::fail(std::string reason, bool refused) {
  if (failing_ != 0) return;
  loop_.forget(socket_.fd());
  failing_ = loop_.after(std::chrono::milliseconds(0), [this, reason = std::move(reason), refused] {
    const Lost lost = lost_;  // outlives the link
    lost(reason, refused);
  });
}

}  // namespace vdpa::worker
