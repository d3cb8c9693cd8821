// vdpa-datapath's side of the control channel.
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/control_channel.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/unix_socket.h"

namespace vdpa {

ControlClient::ControlClient(const std::string& path, EventHandler onEvent, ClosedHandler onClosed)
    : path_(path),
      onEvent_(std::move(onEvent)),
      onClosed_(std::move(onClosed)),
      fd_(connectUnix(path)) {
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  checked(::fcntl(fd_.get(), F_SETFL, flags & ~O_NONBLOCK), "cannot make {} blocking", path);
  reader_ = std::thread([this] { read(); });
}

ControlClient::~ControlClient() {
  ::shutdown(fd_.get(), SHUT_RDWR);
  reader_.join();
}

nlohmann::json ControlClient::call(const std::string& op, const nlohmann::json& args,
                                   std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  int64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    id = nextId_++;
    answers_[id] = nullptr;
  }
  const std::string line = jsonText(nlohmann::json{{"id", id}, {"op", op}, {"args", args}}) + "\n";
  {
    std::lock_guard lock(writing_);
    for (size_t sent = 0; sent < line.size();) {
      const ssize_t count = ::send(fd_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) break;  // the reader sees the end and wakes us
      sent += static_cast<size_t>(count);
    }
  }
  std::unique_lock lock(mutex_);
  answered_.wait_until(lock, deadline, [&] { return closed_ || !answers_[id].is_null(); });
  const nlohmann::json reply = std::move(answers_[id]);
  answers_.erase(id);
  if (reply.is_null())
    throw systemError(closed_ ? ECONNRESET : ETIMEDOUT, "no answer to '{}' on {}", op, path_);
  if (reply.contains("error")) throw std::runtime_error(reply["error"].get<std::string>());
  return reply.value("ok", nlohmann::json::object());
}

void ControlClient::read() {
  std::string input;
  char buffer[65536];
  for (;;) {
    const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    input.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = input.find('\n')) != std::string::npos;) {
      dispatch(input.substr(0, end));
      input.erase(0, end + 1);
    }
  }
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  answered_.notify_all();
  if (onClosed_) onClosed_();
}

void ControlClient::dispatch(const std::string& line) {
  auto message = tryParseJson(line);
  if (!message.is_object()) return;
  if (message.contains("event")) {
    if (onEvent_) onEvent_(message);
    return;
  }
  std::lock_guard lock(mutex_);
  const auto waiting = answers_.find(message.value("id", int64_t{0}));
  if (waiting == answers_.end()) return;  // its caller gave up
  waiting->second = std::move(message);
  answered_.notify_all();
}

}  // namespace vdpa
