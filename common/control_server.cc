// The supervised side of the control channel.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <string>
#include <utility>

#include "common/control_channel.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/unix_socket.h"

namespace vdpa {
namespace {

constexpr int kBacklog = 64;
constexpr size_t kMaxRequest = 1 << 20;  // bytes in one line
constexpr size_t kMaxPending = 8 << 20;  // bytes waiting for a client that doesn't read

void watch(int epoll, int operation, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  checked(::epoll_ctl(epoll, operation, fd, &event), "cannot watch a control connection");
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
  watch(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
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
    if (client == clients_.end()) continue;
    bool alive = true;
    if (events[i].events & EPOLLOUT) alive = flush(client->second);
    if (alive && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
      alive = serve(client->second);
    if (!alive) clients_.erase(fd);
  }
}

void ControlServer::broadcast(const nlohmann::json& event) {
  for (auto client = clients_.begin(); client != clients_.end();) {
    client = send(client->second, event) ? std::next(client) : clients_.erase(client);
  }
}

void ControlServer::acceptClients() {
  for (;;) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    watch(epoll_.get(), EPOLL_CTL_ADD, fd.get(), EPOLLIN);
    const int key = fd.get();
    clients_.emplace(key, Client{std::move(fd), {}, {}});
  }
}

bool ControlServer::serve(Client& client) {
  char buffer[65536];
  for (;;) {
    const ssize_t count = ::recv(client.fd.get(), buffer, sizeof buffer, 0);
    if (count == 0) return false;
    if (count < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN;
    }
    client.input.append(buffer, static_cast<size_t>(count));
    for (size_t end; (end = client.input.find('\n')) != std::string::npos;) {
      const std::string line = client.input.substr(0, end);
      client.input.erase(0, end + 1);
      if (!send(client, answer(line))) return false;
    }
    if (client.input.size() > kMaxRequest) return false;
  }
}

nlohmann::json ControlServer::answer(const std::string& line) {
  nlohmann::json reply = nlohmann::json::object();
  try {
    const auto request = parseJson(line);
    reply["id"] = request.at("id");
    reply["ok"] = handler_(request.at("op").get<std::string>(),
                           request.value("args", nlohmann::json::object()));
  } catch (const std::exception& error) {
    reply["error"] = error.what();
  }
  return reply;
}

bool ControlServer::send(Client& client, const nlohmann::json& message) {
  const bool idle = client.output.empty();
  client.output += anyJsonText(message);
  client.output += '\n';
  if (client.output.size() > kMaxPending) return false;
  return !idle || flush(client);
}

bool ControlServer::flush(Client& client) {
  while (!client.output.empty()) {
    const ssize_t count =
        ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return false;
      watch(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), EPOLLIN | EPOLLOUT);
      return true;
    }
    client.output.erase(0, static_cast<size_t>(count));
  }
  watch(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), EPOLLIN);
  return true;
}

}  // namespace vdpa
