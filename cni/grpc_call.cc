// Framing and headers: "gRPC over HTTP2" (doc/PROTOCOL-HTTP2.md of the gRPC
// project).
#include "cni/grpc_call.h"

#include <fmt/core.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "common/unique_fd.h"
#include "common/unix_socket.h"

namespace vdpa::cni {
namespace {

using Clock = std::chrono::steady_clock;

// Both count from the start of a call: until the server has room for the connection, and until its
// HTTP/2 SETTINGS arrive, which a gRPC server sends unprompted, before it reads anything (RFC 9113,
// 3.4). A call may take long; these don't, unless no process serves the socket. The second allows
// for a node whose processors are all busy.
constexpr std::chrono::milliseconds kConnectTime{1000}, kGreetingTime{2000};

constexpr size_t kPrefix = 5;              // of a message: compressed or not (1 byte), length (4)
constexpr size_t kMaxResponse = 16 << 20;  // bytes
constexpr const char* kUncompressed = "the answer is compressed, although this was not requested";

// Filled by the callbacks of one call.
struct Exchange {
  std::string request;
  size_t sent = 0;
  std::string response;
  std::string status, words;  // grpc-status and grpc-message as received
  bool greeted = false;       // the server's SETTINGS have arrived
  bool closed = false;
  uint32_t resetCode = NGHTTP2_NO_ERROR;
};

Exchange& exchangeOf(void* user) {
  return *static_cast<Exchange*>(user);
}

int onHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t nameLength,
             const uint8_t* value, size_t valueLength, uint8_t, void* user) {
  const std::string_view key(reinterpret_cast<const char*>(name), nameLength);
  const std::string_view text(reinterpret_cast<const char*>(value), valueLength);
  if (key == "grpc-status") exchangeOf(user).status = text;
  if (key == "grpc-message") exchangeOf(user).words = text;
  return 0;
}

int onFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  if (frame->hd.type == NGHTTP2_SETTINGS) exchangeOf(user).greeted = true;
  return 0;
}

int onData(nghttp2_session*, uint8_t, int32_t, const uint8_t* data, size_t length, void* user) {
  auto& response = exchangeOf(user).response;
  if (response.size() + length > kMaxResponse) return NGHTTP2_ERR_CALLBACK_FAILURE;
  response.append(reinterpret_cast<const char*>(data), length);
  return 0;
}

int onClose(nghttp2_session*, int32_t, uint32_t code, void* user) {
  exchangeOf(user).closed = true;
  exchangeOf(user).resetCode = code;
  return 0;
}

ssize_t readRequest(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                    nghttp2_data_source* source, void*) {
  auto& exchange = *static_cast<Exchange*>(source->ptr);
  const size_t count = std::min(size, exchange.request.size() - exchange.sent);
  std::copy_n(exchange.request.data() + exchange.sent, count, buffer);
  exchange.sent += count;
  if (exchange.sent == exchange.request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}

std::string framed(const std::string& message) {
  std::string bytes(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes += static_cast<char>(message.size() >> shift & 0xff);
  return bytes + message;
}

// grpc-message is percent-encoded.
std::string decoded(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::sscanf(text.c_str() + i + 1, "%2x", &code) == 1) {
      plain += static_cast<char>(code);
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

nghttp2_nv header(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

struct Free {
  void operator()(nghttp2_session* session) const { nghttp2_session_del(session); }
  void operator()(nghttp2_session_callbacks* callbacks) const {
    nghttp2_session_callbacks_del(callbacks);
  }
};

using Session = std::unique_ptr<nghttp2_session, Free>;

Session openCall(Exchange& exchange, const std::string& method, std::chrono::milliseconds timeout) {
  nghttp2_session_callbacks* created = nullptr;
  if (nghttp2_session_callbacks_new(&created) != 0) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_session_callbacks, Free> callbacks(created);
  nghttp2_session_callbacks_set_on_header_callback(created, onHeader);
  nghttp2_session_callbacks_set_on_frame_recv_callback(created, onFrame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(created, onData);
  nghttp2_session_callbacks_set_on_stream_close_callback(created, onClose);

  nghttp2_session* opened = nullptr;
  if (nghttp2_session_client_new(&opened, created, &exchange) != 0) throw std::bad_alloc();
  Session session(opened);
  const std::string limit = fmt::format("{}m", timeout.count());
  const nghttp2_nv headers[] = {
      header(":method", "POST"),     header(":scheme", "http"),
      header(":path", method),       header(":authority", "localhost"),
      header("te", "trailers"),      header("content-type", "application/grpc"),
      header("grpc-timeout", limit), header("user-agent", "vdpa-cni"),
  };
  nghttp2_data_provider body{};
  body.source.ptr = &exchange;
  body.read_callback = readRequest;
  if (nghttp2_submit_settings(opened, NGHTTP2_FLAG_NONE, nullptr, 0) != 0 ||
      nghttp2_submit_request(opened, nullptr, headers, std::size(headers), &body, nullptr) < 0)
    throw std::bad_alloc();
  return session;
}

// Why a connection is unusable.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// False when the deadline has passed.
bool waitFor(int socket, short events, Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd entry{socket, events, 0};
  return left > 0 && (::poll(&entry, 1, static_cast<int>(left)) != 0);
}

// False when the deadline has passed.
bool sendAll(nghttp2_session* session, int socket, Clock::time_point deadline) {
  for (;;) {
    const uint8_t* data = nullptr;
    ssize_t length = nghttp2_session_mem_send(session, &data);
    if (length < 0) throw Broken(nghttp2_strerror(static_cast<int>(length)));
    if (length == 0) return true;
    while (length > 0) {
      const ssize_t count = ::send(socket, data, static_cast<size_t>(length), MSG_NOSIGNAL);
      if (count >= 0) {
        data += count;
        length -= count;
      } else if (errno == EAGAIN) {
        if (!waitFor(socket, POLLOUT, deadline)) return false;
      } else if (errno != EINTR) {
        throw Broken(std::strerror(errno));
      }
    }
  }
}

// False if a deadline has passed: `greeting` before the server's SETTINGS arrived, or `answer`
// before the answer.
bool exchangeAll(nghttp2_session* session, const Exchange& exchange, int socket,
                 Clock::time_point greeting, Clock::time_point answer) {
  uint8_t buffer[16384];
  while (!exchange.closed) {
    const auto deadline = exchange.greeted ? answer : greeting;
    if (!sendAll(session, socket, deadline) || !waitFor(socket, POLLIN, deadline)) return false;
    const ssize_t count = ::recv(socket, buffer, sizeof buffer, 0);
    if (count == 0) throw Broken("the connection was closed before the answer");
    if (count < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      throw Broken(std::strerror(errno));
    }
    const ssize_t taken = nghttp2_session_mem_recv(session, buffer, static_cast<size_t>(count));
    if (taken < 0) throw Broken(nghttp2_strerror(static_cast<int>(taken)));
  }
  return true;
}

GrpcReply replyOf(const Exchange& exchange) {
  if (exchange.status.empty())
    throw Broken(
        fmt::format("the call was reset ({})", nghttp2_http2_strerror(exchange.resetCode)));
  const int code = std::atoi(exchange.status.c_str());
  if (code != 0) {
    std::string words = decoded(exchange.words);
    if (words.empty()) words = fmt::format("an error without a message, gRPC status {}", code);
    return {static_cast<GrpcCode>(code), std::move(words), {}};
  }
  const std::string& bytes = exchange.response;
  if (bytes.size() < kPrefix) throw Broken("the answer is empty");
  if (bytes[0] != 0) throw Broken(kUncompressed);
  size_t length = 0;
  for (size_t i = 1; i < kPrefix; ++i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  if (bytes.size() - kPrefix != length)
    throw Broken(
        fmt::format("the answer has {} bytes instead of {}", bytes.size() - kPrefix, length));
  return {GrpcCode::ok, {}, bytes.substr(kPrefix)};
}

}  // namespace

GrpcReply callGrpc(const std::string& socketPath, const std::string& method,
                   const std::string& request, std::chrono::milliseconds timeout) {
  const auto begin = Clock::now();
  const auto greetingTime = std::min(timeout, kGreetingTime);
  const UniqueFd socket = connectUnix(socketPath, std::min(timeout, kConnectTime));
  Exchange exchange;
  exchange.request = framed(request);
  const Session session = openCall(exchange, method, timeout);
  try {
    if (!exchangeAll(session.get(), exchange, socket.get(), begin + greetingTime, begin + timeout))
      return {GrpcCode::deadlineExceeded,
              exchange.greeted ? fmt::format("no answer within {} ms", timeout.count())
                               : fmt::format("no HTTP/2 SETTINGS within {} ms: nothing serves it",
                                             greetingTime.count()),
              {}};
    return replyOf(exchange);
  } catch (const Broken& error) {
    return {GrpcCode::unavailable, error.what(), {}};
  }
}

}  // namespace vdpa::cni
