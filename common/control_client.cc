// vdpa-datapath's side of the control channel.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/control_channel.h"
#include "common/errors.h"
#include "common/event_loop.h"
#include "common/json.h"
#include "common/task.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"

namespace vdpa {
namespace {

std::string requestOf(int64_t id, const std::string& op, const nlohmann::json& args) {
  return jsonText(nlohmann::json{{"id", id}, {"op", op}, {"args", args}}) + "\n";
}

nlohmann::json resultOf(const nlohmann::json& answer) {
  if (answer.contains("error")) throw std::runtime_error(answer["error"].get<std::string>());
  return answer.value("ok", nlohmann::json::object());
}

}  // namespace

ControlClient::ControlClient(EventLoop& loop, const std::string& path, EventHandler onEvent,
                             ClosedHandler onClosed)
    : loop_(loop),
      path_(path),
      onEvent_(std::move(onEvent)),
      onClosed_(std::move(onClosed)),
      fd_(connectUnix(path)),
      watch_(loop, fd_.get(), EPOLLIN, [this](uint32_t events) { onReady(events); }) {}

ControlClient::~ControlClient() = default;

Task<nlohmann::json> ControlClient::call(std::string op, nlohmann::json args,
                                         std::chrono::milliseconds timeout) {
  const auto deadline = EventLoop::Clock::now() + timeout;
  const int64_t id = nextId_++;
  Pending pending{Notification(loop_), nullptr};
  // Removes the entry however this coroutine ends.
  struct Entry {
    std::map<int64_t, Pending*>& all;
    const int64_t id;
    ~Entry() { all.erase(id); }
  } const entry{pending_, id};
  pending_[id] = &pending;
  output_ += requestOf(id, op, args);
  flush();
  while (pending.answer.is_null() && !closed_) {
    const bool inTime = co_await pending.changed.waitUntil(deadline);
    if (inTime) continue;
    read();  // its answer may have been there for long, if the loop was held up
    break;
  }
  if (pending.answer.is_null())
    throw systemError(closed_ ? ECONNRESET : ETIMEDOUT, "no answer to '{}' on {}", op, path_);
  co_return resultOf(pending.answer);
}

void ControlClient::onReady(uint32_t events) {
  if (events & EPOLLOUT) flush();
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read();
}

// Sends the rest once there is room: a process that does not read must not block others.
void ControlClient::flush() {
  while (!output_.empty()) {
    const ssize_t count = ::send(fd_.get(), output_.data(), output_.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) output_.clear();  // read() finds the end, after the messages before it
    output_.erase(0, static_cast<size_t>(std::max<ssize_t>(count, 0)));
  }
  if (watch_) watch_.change(output_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

void ControlClient::read() {
  for (;;) {
    char buffer[65536];
    const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) return close();
    input_.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = input_.find('\n')) != std::string::npos;) {
      const std::string line = input_.substr(0, end);
      input_.erase(0, end + 1);
      dispatch(line);
    }
  }
}

void ControlClient::close() {
  closed_ = true;
  watch_.reset();
  for (const auto& [id, pending] : pending_) pending->changed.notify();
  if (onClosed_) onClosed_();
}

void ControlClient::dispatch(const std::string& line) {
  auto message = tryParseJson(line);
  if (!message.is_object()) return;
  if (message.contains("event")) {
    if (onEvent_) onEvent_(message);
    return;
  }
  ++answers_;
  const auto waiting = pending_.find(message.value("id", int64_t{0}));
  if (waiting == pending_.end()) return;  // its caller gave up
  waiting->second->answer = std::move(message);
  waiting->second->changed.notify();
}

nlohmann::json askOnce(const std::string& path, const std::string& op, const nlohmann::json& args,
                       std::chrono::milliseconds timeout) {
  const auto deadline = EventLoop::Clock::now() + timeout;
  const UniqueFd fd = connectUnix(path);
  const std::string request = requestOf(1, op, args);
  std::string input;
  for (size_t sent = 0;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - EventLoop::Clock::now());
    pollfd ready{fd.get(), static_cast<short>(sent < request.size() ? POLLOUT : POLLIN), 0};
    if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0)
      throw systemError(ETIMEDOUT, "no answer to '{}' on {}", op, path);
    if (sent < request.size()) {
      const ssize_t count =
          ::send(fd.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      if (count < 0 && errno != EINTR && errno != EAGAIN)
        throw systemError(errno, "no answer to '{}' on {}", op, path);
      sent += static_cast<size_t>(std::max<ssize_t>(count, 0));
      continue;
    }
    char buffer[65536];
    const ssize_t count = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) throw systemError(ECONNRESET, "no answer to '{}' on {}", op, path);
    input.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = input.find('\n')) != std::string::npos;) {
      const auto message = tryParseJson(input.substr(0, end));
      input.erase(0, end + 1);
      if (message.is_object() && !message.contains("event")) return resultOf(message);
    }
  }
}

}  // namespace vdpa
