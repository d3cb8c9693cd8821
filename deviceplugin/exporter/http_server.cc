#include "deviceplugin/exporter/http_server.h"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace vdpa::exporter {
namespace {

constexpr std::chrono::milliseconds kCloseTime{1000};
// At once, before others have their turn: whoever connects without end holds nobody up.
constexpr int kMaxAccepts = 32;
// Until the next attempt to accept a connection for which something was missing.
constexpr std::chrono::milliseconds kResume{100};
constexpr const char* kMetricsType = "text/plain; version=0.0.4; charset=utf-8";
constexpr const char* kTextType = "text/plain; charset=utf-8";

std::shared_ptr<const std::string> response(std::string_view status, std::string_view type,
                                            std::string_view body, std::string_view more = "") {
  return std::make_shared<const std::string>(
      fmt::format("HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n"
                  "X-Content-Type-Options: nosniff\r\n{}\r\n{}",
                  status, type, body.size(), more, body));
}

std::shared_ptr<const std::string> refusal(std::string_view status, std::string_view more = "") {
  return response(status, kTextType, fmt::format("{}; the metrics are at /metrics\n", status),
                  more);
}

// The first line of a request (RFC 9112, 3).
struct RequestLine {
  std::string_view method, path;  // without the query
  bool valid = false;
};

RequestLine requestLine(std::string_view text) {
  const std::string_view line = text.substr(0, text.find_first_of("\r\n"));
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return {};
  RequestLine request{line.substr(0, first), line.substr(first + 1, last - first - 1),
                      line.substr(last + 1).starts_with("HTTP/1.")};
  request.path = request.path.substr(0, request.path.find('?'));
  return request;
}

// The end of the request's header has arrived.
bool isWhole(const std::string& input) {
  return input.find("\r\n\r\n") != std::string::npos || input.find("\n\n") != std::string::npos;
}

UniqueFd listenOn(const addrinfo& address) {
  UniqueFd socket(checked(
      ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "no socket"));
  const int on = 1, off = 0;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6)
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  checked(::bind(socket.get(), address.ai_addr, address.ai_addrlen), "cannot bind");
  checked(::listen(socket.get(), SOMAXCONN), "cannot listen");
  return socket;
}

}  // namespace

UniqueFd listenTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto bad = [&](std::string_view why) {
    return std::runtime_error(fmt::format("cannot serve metrics on {}: {}", address, why));
  };
  if (port.empty() || port.find_first_not_of("0123456789") != std::string::npos || port.size() > 5)
    throw bad("expected HOST:PORT with an IP address, or :PORT");
  std::string why;
  // Without a host: IPv6 first, whose socket takes IPv4 too.
  for (const char* any : {"::", "0.0.0.0"}) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
    addrinfo* found = nullptr;
    const int error =
        ::getaddrinfo(host.empty() ? any : host.c_str(), port.c_str(), &hints, &found);
    if (error != 0) throw bad(::gai_strerror(error));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
    try {
      return listenOn(*found);
    } catch (const std::system_error& failure) {
      why = failure.what();
      if (!host.empty() || failure.code() == std::errc::address_in_use) break;
    }
  }
  throw bad(why);
}

HttpServer::HttpServer(EventLoop& loop, UniqueFd listener, std::function<void(Done)> collect,
                       Limits limits)
    : loop_(loop),
      listener_(std::move(listener)),
      collect_(std::move(collect)),
      limits_(limits),
      watch_(loop, listener_.get(), EPOLLIN, [this](uint32_t) { accept(); }),
      resume_(loop, [this] { watch_.change(EPOLLIN); }) {}

void HttpServer::accept() {
  for (int i = 0; i < kMaxAccepts; ++i) {
    // If all of them wait for the metrics, those come soon, and the next client waits for its turn.
    if (connections_.size() >= limits_.connections && !makeRoom()) return pause();
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EAGAIN) return;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      const auto error = systemError(errno, "cannot accept a connection (retrying)");
      if (makeRoom()) continue;
      log::warn("{}", error.what());
      return pause();
    }
    const Id id = next_++;
    const auto [entry, added] = connections_.emplace(
        std::piecewise_construct, std::forward_as_tuple(id),
        std::forward_as_tuple(loop_, std::move(fd), [this, id] { connections_.erase(id); }));
    Connection& connection = entry->second;
    connection.watch = EventLoop::Watch(loop_, connection.fd.get(), EPOLLIN,
                                        [this, id](uint32_t events) { ready(id, events); });
    connection.timer.start(limits_.requestTime);
    // A request that is there already is read before other connections can take this one's place.
    read(id, connection);
  }
}

void HttpServer::pause() {
  watch_.change(0);
  resume_.start(kResume);
}

// Ends the connection that is least likely to be a scraper's: of those that have their answer, of
// those that owe their request, and of those that do not read, the oldest. A scraper is in each of
// these states for a moment only.
bool HttpServer::makeRoom() {
  for (const State state : {State::closing, State::reading, State::writing})
    for (auto entry = connections_.begin(); entry != connections_.end(); ++entry)
      if (entry->second.state == state) {
        connections_.erase(entry);
        return true;
      }
  return false;
}

void HttpServer::ready(Id id, uint32_t events) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  if (events & (EPOLLHUP | EPOLLERR))
    connections_.erase(found);
  else if (connection.state == State::writing)
    write(id, connection);
  else
    read(id, connection);
}

void HttpServer::read(Id id, Connection& connection) {
  std::array<char, 4096> buffer;
  const ssize_t count = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    connections_.erase(id);
    return;
  }
  if (connection.state != State::reading) return;  // nothing that follows a request is of use
  connection.input.append(buffer.data(), static_cast<size_t>(count));
  if (isWhole(connection.input))
    handle(id, connection);
  else if (connection.input.size() > limits_.request)
    answer(id, connection, refusal("431 Request Header Fields Too Large"));
}

void HttpServer::handle(Id id, Connection& connection) {
  const RequestLine request = requestLine(connection.input);
  connection.head = request.method == "HEAD";
  if (!request.valid) return answer(id, connection, refusal("400 Bad Request"));
  if (request.method != "GET" && !connection.head)
    return answer(id, connection, refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n"));
  if (request.path == "/healthz")
    return answer(id, connection, response("200 OK", kTextType, "ok\n"));
  if (request.path != "/metrics") return answer(id, connection, refusal("404 Not Found"));
  if (last_ && std::chrono::steady_clock::now() - lastTime_ < limits_.pause)
    return answer(id, connection, last_);
  connection.state = State::waiting;
  connection.watch.change(0);  // the end of the connection is noticed all the same
  connection.timer.start(limits_.answerTime);
  waiting_.push_back(id);
  if (!collecting_) collect();
}

void HttpServer::collect() {
  collecting_ = true;
  collect_([this](const std::string& text) {
    collecting_ = false;
    last_ = response("200 OK", kMetricsType, text);
    lastTime_ = std::chrono::steady_clock::now();
    for (const Id id : std::exchange(waiting_, {}))
      if (const auto found = connections_.find(id); found != connections_.end())
        answer(id, found->second, last_);
  });
}

void HttpServer::answer(Id id, Connection& connection, std::shared_ptr<const std::string> output) {
  if (connection.head)
    output = std::make_shared<const std::string>(output->substr(0, output->find("\r\n\r\n") + 4));
  connection.output = std::move(output);
  connection.state = State::writing;
  connection.watch.change(EPOLLOUT);
  connection.timer.startWithin(limits_.answerTime);
  write(id, connection);
}

void HttpServer::write(Id id, Connection& connection) {
  const std::string& output = *connection.output;
  while (connection.sent < output.size()) {
    const ssize_t count = ::send(connection.fd.get(), output.data() + connection.sent,
                                 output.size() - connection.sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) {
      connections_.erase(id);
      return;
    }
    connection.sent += static_cast<size_t>(count);
  }
  ::shutdown(connection.fd.get(), SHUT_WR);
  connection.state = State::closing;
  connection.output.reset();
  connection.watch.change(EPOLLIN);
  connection.timer.start(kCloseTime);
}

}  // namespace vdpa::exporter
