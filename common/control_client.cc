// vdpa-datapath's side of the control channel.
#include <fmt/core.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_stream.h"
#include "common/errors.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/task.h"
#include "common/unix_socket.h"

namespace vdpa {
namespace {

using Format = ControlStream::Format;

void throwError(const control::Answer& answer) {
  if (answer.has_error()) throw std::runtime_error(answer.error());
}

std::system_error noAnswer(int code, const control::Request& request, const std::string& path) {
  return systemError(code, "no answer to '{}' on {}", operationName(request.operation_case()),
                     path);
}

}  // namespace

ControlClient::ControlClient(EventLoop& loop, const std::string& path, Peer peer,
                             EventHandler onEvent, ClosedHandler onClosed)
    : loop_(loop),
      path_(path),
      onEvent_(std::move(onEvent)),
      onClosed_(std::move(onClosed)),
      stream_(connectUnix(path), ControlStream::kMaxMessage),
      format_(peer == Peer::started ? Format::frame : Format::line),
      watch_(loop, stream_.fd(), EPOLLIN, [this](uint32_t events) { onReady(events); }) {}

ControlClient::~ControlClient() = default;

Task<control::Answer> ControlClient::call(control::Request request,
                                          std::chrono::milliseconds timeout,
                                          Descriptors descriptors) {
  const auto deadline = EventLoop::Clock::now() + timeout;
  request.set_id(nextId_++);
  if (format_ == Format::line && !descriptors.empty())
    throw std::runtime_error(
        fmt::format("the process on {} is of release 0.1.0 and takes no descriptors", path_));
  Pending pending{request.operation_case(), Notification(loop_), {}};
  // Removes the entry however this coroutine ends.
  struct Entry {
    std::map<int64_t, Pending*>& all;
    const int64_t id;
    ~Entry() { all.erase(id); }
  } const entry{pending_, request.id()};
  pending_[request.id()] = &pending;
  if (!closed_) {
    try {
      stream_.send({format_,
                    format_ == Format::line ? requestToJson(request) : request.SerializeAsString(),
                    std::move(descriptors)});
    } catch (const std::runtime_error& error) {
      throw systemError(ENOBUFS, "cannot send '{}' to {}: {}", operationName(pending.operation),
                        path_, error.what());
    }
    watchUnsent();
  }
  while (!pending.answered && !closed_) {
    const bool inTime = co_await pending.changed.waitUntil(deadline);
    if (inTime) continue;
    receive();  // its answer may have been there for long, if the loop was held up
    break;
  }
  if (!pending.answered) throw noAnswer(closed_ ? ECONNRESET : ETIMEDOUT, request, path_);
  throwError(pending.answer);
  co_return std::move(pending.answer);
}

void ControlClient::watchUnsent() {
  if (watch_) watch_.change(stream_.sent() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

// Sends the rest once there is room: a process that does not read must not block others.
void ControlClient::onReady(uint32_t events) {
  if (events & EPOLLOUT) {
    try {
      stream_.flush();
    } catch (const std::exception& error) {
      log::warn("closed the connection to {}: {}", path_, error.what());
      return close();
    }
    watchUnsent();
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive();
}

void ControlClient::receive() {
  bool open = false;
  try {
    open = stream_.receive([this](const ControlStream::Message& message) { dispatch(message); });
  } catch (const std::exception& error) {
    log::warn("closed the connection to {}: {}", path_, error.what());
  }
  if (!open) close();
}

void ControlClient::close() {
  closed_ = true;
  watch_.reset();
  for (const auto& [id, pending] : pending_) pending->changed.notify();
  if (onClosed_) onClosed_();
}

void ControlClient::dispatch(const ControlStream::Message& message) {
  if (message.format == Format::frame) {
    control::FromProcess parsed;
    if (!parsed.ParseFromString(message.bytes))
      throw std::runtime_error("a frame that is no answer and no event");
    return take(std::move(parsed));
  }
  auto parsed = fromProcessFromJson(message.bytes, [this](int64_t id) {
    const auto waiting = pending_.find(id);
    return waiting == pending_.end() ? control::Request::OPERATION_NOT_SET
                                     : waiting->second->operation;
  });
  if (parsed) take(std::move(*parsed));
}

void ControlClient::take(control::FromProcess message) {
  if (message.has_event()) {
    if (onEvent_) onEvent_(message.event());
    return;
  }
  ++answers_;
  auto& answer = *message.mutable_answer();
  if (answer.hello().frames()) format_ = Format::frame;
  const auto waiting = pending_.find(answer.id());
  if (waiting == pending_.end()) return;  // its caller gave up
  waiting->second->answer = std::move(answer);
  waiting->second->answered = true;
  waiting->second->changed.notify();
}

control::Answer askOnce(const std::string& path, control::Request request,
                        std::chrono::milliseconds timeout) {
  const auto deadline = EventLoop::Clock::now() + timeout;
  request.set_id(1);
  ControlStream stream(connectUnix(path), ControlStream::kMaxMessage);
  stream.send({Format::line, requestToJson(request), {}});
  std::optional<control::Answer> answer;
  for (bool open = true; !answer;) {
    if (!open) throw noAnswer(ECONNRESET, request, path);
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - EventLoop::Clock::now());
    pollfd ready{stream.fd(), static_cast<short>(stream.sent() ? POLLIN : POLLIN | POLLOUT), 0};
    if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0)
      throw noAnswer(ETIMEDOUT, request, path);
    if (ready.revents & POLLOUT) stream.flush();
    open = stream.receive([&](const ControlStream::Message& message) {
      auto parsed =
          fromProcessFromJson(message.bytes, [&](int64_t) { return request.operation_case(); });
      if (parsed && parsed->has_answer()) answer = std::move(*parsed->mutable_answer());
    });
  }
  throwError(*answer);
  return *std::move(answer);
}

control::Request helloRequest() {
  control::Request request;
  request.mutable_hello();
  return request;
}

control::Request stopRequest() {
  control::Request request;
  request.mutable_stop();
  return request;
}

}  // namespace vdpa
