// The supervised side of the control channel.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_stream.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "common/version.h"

namespace vdpa {
namespace {

using Format = ControlStream::Format;

constexpr int kBacklog = 64;
constexpr size_t kMaxRequest = 1 << 20;  // bytes

void watchFd(int epoll, int operation, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  checked(::epoll_ctl(epoll, operation, fd, &event), "cannot watch a control connection");
}

control::Request parse(const ControlStream::Message& message) {
  if (message.format == Format::line) return requestFromJson(message.bytes);
  control::Request request;
  if (!request.ParseFromString(message.bytes))
    throw std::runtime_error("a frame that is no request");
  return request;
}

}  // namespace

ControlServer::ControlServer(std::string path, Handler handler, int inherited)
    : path_(std::move(path)),
      handler_(std::move(handler)),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "cannot create an epoll instance")),
      listener_(inherited < 0 ? listenUnix(path_, 0600)
                              : UniqueFd(checked(::fcntl(inherited, F_DUPFD_CLOEXEC, 0),
                                                 "cannot use descriptor {}", inherited))) {
  // From now on clients see this process as the peer (SO_PEERCRED is set by listen(2)).
  checked(::listen(listener_.get(), kBacklog), "cannot listen on {}", path_);
  watchFd(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
}

ControlServer::~ControlServer() {
  ::unlink(path_.c_str());
}

void ControlServer::process() {
  epoll_event events[16];
  const int count = ::epoll_wait(epoll_.get(), events, 16, 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == listener_.get()) {
      acceptClients();
      continue;
    }
    const auto client = clients_.find(fd);
    if (client != clients_.end() && !serve(client->second, events[i].events)) clients_.erase(fd);
  }
}

void ControlServer::broadcast(const control::Event& event) {
  control::FromProcess message;
  *message.mutable_event() = event;
  for (auto client = clients_.begin(); client != clients_.end();) {
    try {
      send(client->second, message);
      watch(client->second);
      ++client;
    } catch (const std::exception& error) {
      noteDropped(error);
      client = clients_.erase(client);
    }
  }
}

void ControlServer::acceptClients() {
  for (;;) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    watchFd(epoll_.get(), EPOLL_CTL_ADD, fd.get(), EPOLLIN);
    const int key = fd.get();
    clients_.emplace(key, Client{ControlStream(std::move(fd), kMaxRequest)});
  }
}

bool ControlServer::serve(Client& client, uint32_t events) {
  try {
    if (events & EPOLLOUT) client.stream.flush();
    const bool open = !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) ||
                      client.stream.receive([&](ControlStream::Message message) {
                        answer(client, std::move(message));
                      });
    if (open) watch(client);
    return open;
  } catch (const std::exception& error) {
    noteDropped(error);
    return false;
  }
}

void ControlServer::noteDropped(const std::exception& reason) const {
  log::warn("dropped a connection to {}: {}", path_, reason.what());
}

void ControlServer::answer(Client& client, ControlStream::Message message) {
  client.format = message.format;
  control::FromProcess reply;
  auto& answer = *reply.mutable_answer();
  try {
    const control::Request request = parse(message);
    try {
      if (request.operation_case() == control::Request::OPERATION_NOT_SET)
        throw std::invalid_argument(
            fmt::format("unknown operation; this is release {}", programVersion()));
      answer = handler_(request, message.descriptors);
      if (answer.has_hello()) answer.mutable_hello()->set_frames(true);
    } catch (const std::exception& error) {
      answer.Clear();
      answer.set_error(validText(error.what()));
    }
    answer.set_id(request.id());
  } catch (const BadRequest& error) {
    answer.set_error(error.what());
    if (error.id) answer.set_id(*error.id);
  }
  send(client, reply);
}

void ControlServer::send(Client& client, const control::FromProcess& message) {
  client.stream.send(
      {client.format,
       client.format == Format::line ? fromProcessToJson(message) : message.SerializeAsString(),
       {}});
}

void ControlServer::watch(const Client& client) {
  watchFd(epoll_.get(), EPOLL_CTL_MOD, client.stream.fd(),
          client.stream.sent() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

}  // namespace vdpa
