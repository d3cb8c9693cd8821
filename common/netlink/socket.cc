#include "common/netlink/socket.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/unique_fd.h"

namespace vdpa::netlink {
namespace {

// A PF's message has all its VFs in one attribute, which can't be longer than 64 KiB. In a dump the
// kernel fills at most 32 KiB at a time.
constexpr size_t kBuffer = 128 << 10;

// NLMSG_ERROR, which is an acknowledgement too, and NLMSG_DONE: an errno value, and attributes
// after `size` bytes of payload.
Error errorOf(const Message& message, int number, size_t size) {
  Error error{number <= 0 && number > -4096 ? -number : EBADMSG, ""};
  if (message.flags() & NLM_F_ACK_TLVS)
    for (const Attribute attribute : message.attributes(size))
      if (attribute.type() == NLMSGERR_ATTR_MSG) error.text = attribute.text();
  return error;
}

// Nothing while more follows.
std::optional<Error> endOf(const Message& message) {
  if (message.type() == NLMSG_ERROR) {
    const auto body = message.body<nlmsgerr>();
    if (!body) return Error{EBADMSG, ""};
    // The request follows, of which the kernel may have left out all but the header.
    const size_t request = message.flags() & NLM_F_CAPPED ? sizeof(nlmsghdr) : body->msg.nlmsg_len;
    return errorOf(message, body->error, sizeof body->error + std::max(sizeof(nlmsghdr), request));
  }
  if (message.type() == NLMSG_DONE)
    return errorOf(message, message.body<int>().value_or(0), sizeof(int));
  return std::nullopt;
}

}  // namespace

UniqueFd openSocket(int protocol, uint32_t groups, int flags) {
  UniqueFd socket(checked(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, protocol),
                          "cannot open a netlink socket"));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  checked(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "{}",
          groups == 0 ? "cannot bind a netlink socket" : "cannot listen to the kernel's events");
  return socket;
}

Socket::Socket(int protocol) : Socket(openSocket(protocol)) {
  // To the kernel: nobody else can send to it then.
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  checked(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel),
          "cannot connect a netlink socket");
  // The kernel's own words in errors, without a copy of the request. Both are since Linux 4.12, and
  // only make errors clearer.
  for (const int option : {NETLINK_EXT_ACK, NETLINK_CAP_ACK}) {
    const int on = 1;
    ::setsockopt(socket_.get(), SOL_NETLINK, option, &on, sizeof on);
  }
}

Socket::Socket(UniqueFd socket, std::chrono::milliseconds timeout)
    : socket_(std::move(socket)), buffer_(std::make_unique_for_overwrite<std::byte[]>(kBuffer)) {
  sockaddr_nl address{};
  socklen_t size = sizeof address;
  checked(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size),
          "cannot read a netlink socket's address");
  if (address.nl_family == AF_NETLINK) port_ = address.nl_pid;
  timeval time{};
  time.tv_sec = timeout.count() / 1000;
  time.tv_usec = timeout.count() % 1000 * 1000;
  checked(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time),
          "cannot set a netlink socket's timeout");
}

Error Socket::request(Request& request, const Take& take) {
  request.header()->nlmsg_flags |= NLM_F_ACK;
  bool interrupted = false;  // of dumps only
  return exchange(request, take, interrupted);
}

bool Socket::dumpOnce(Request& request, int attempt, const std::string& what, const Take& take) {
  request.header()->nlmsg_flags |= NLM_F_DUMP;
  bool interrupted = false;
  if (const Error error = exchange(request, take, interrupted))
    throw failure(error, "cannot {}", what);
  if (interrupted && attempt == kAttempts)
    throw systemError(EINTR, "cannot {}: they changed during each of {} attempts", what, attempt);
  return !interrupted;
}

Error Socket::exchange(Request& request, const Take& take, bool& interrupted) {
  request.header()->nlmsg_seq = ++sequence_;
  const Bytes sent = request.message();
  if (::send(socket_.get(), sent.data(), sent.size(), 0) < 0) return {errno, ""};
  for (;;) {
    const auto [error, datagram] = receive();
    if (error) return error;
    Messages messages(datagram);
    while (const auto message = messages.next()) {
      if (!answers(*message)) continue;
      // It stays so until the end, which has to be read before the next request.
      if (message->flags() & NLM_F_DUMP_INTR) interrupted = true;
      if (auto end = endOf(*message)) return *std::move(end);
      if (take && message->type() >= NLMSG_MIN_TYPE) take(*message);
    }
  }
}

std::pair<Error, Bytes> Socket::receive() {
  for (;;) {
    // With MSG_TRUNC, the length of the whole datagram.
    const ssize_t length = ::recv(socket_.get(), buffer_.get(), kBuffer, MSG_TRUNC);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return {{errno == EAGAIN ? ETIMEDOUT : errno, ""}, {}};
    if (length == 0) return {{ECONNRESET, ""}, {}};
    if (static_cast<size_t>(length) > kBuffer) return {{EMSGSIZE, ""}, {}};
    return {{}, {buffer_.get(), static_cast<size_t>(length)}};
  }
}

// Not if it was meant for a request before this one, whose answer came too late.
bool Socket::answers(const Message& message) const {
  return message.sequence() == sequence_ && (port_ == 0 || message.port() == port_);
}

}  // namespace vdpa::netlink
