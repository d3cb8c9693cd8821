#include "deviceplugin/datapath/vhost_user/message_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

// The kernel passes at most this many at once (SCM_MAX_FD in its include/net/scm.h). It would close
// those that there is no room for, which can take long, within recvmsg().
constexpr size_t kMaxPassed = 253;
constexpr size_t kReceiveSpace = CMSG_SPACE(kMaxPassed * sizeof(int));
constexpr size_t kSendSpace = CMSG_SPACE(kMaxDescriptors * sizeof(int));

std::vector<UniqueFd> takeDescriptors(msghdr& header) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace

std::optional<Message> MessageSocket::receive() {
  while (!ended_) {
    std::array<std::byte, kMaxPayload> buffer;
    alignas(cmsghdr) std::array<char, kReceiveSpace> control;
    iovec vector{buffer.data(), reader_.missing()};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
    if (count <= 0) {
      ended_ = true;
      return std::nullopt;
    }
    auto message =
        reader_.add({buffer.data(), static_cast<size_t>(count)}, takeDescriptors(header));
    if (header.msg_flags & MSG_CTRUNC)
      throw protocolError("a message's descriptors are more than this process may open");
    if (message) return message;
  }
  return std::nullopt;
}

bool MessageSocket::send(std::vector<std::byte> bytes, std::vector<SharedFd> descriptors) {
  pendingBytes_ += bytes.size();
  if (pendingBytes_ > kMaxPending) return false;
  pending_.push_back({std::move(bytes), 0, std::move(descriptors)});
  return flush();
}

bool MessageSocket::flush() {
  while (!pending_.empty()) {
    Outgoing& next = pending_.front();
    const auto count = sendSome(next);
    if (!count) return errno == EAGAIN || errno == EWOULDBLOCK;
    next.sent += *count;
    pendingBytes_ -= *count;
    if (next.sent == next.bytes.size()) pending_.pop_front();
  }
  return true;
}

std::optional<size_t> MessageSocket::sendSome(const Outgoing& outgoing) {
  iovec vector{const_cast<std::byte*>(outgoing.bytes.data()) + outgoing.sent,
               outgoing.bytes.size() - outgoing.sent};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, kSendSpace> control{};
  if (outgoing.sent == 0 && !outgoing.descriptors.empty()) {
    const size_t size = outgoing.descriptors.size() * sizeof(int);
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(size);
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(size);
    for (size_t i = 0; i < outgoing.descriptors.size(); ++i) {
      const int fd = outgoing.descriptors[i]->get();
      std::memcpy(CMSG_DATA(part) + i * sizeof fd, &fd, sizeof fd);
    }
  }
  ssize_t count;
  do {
    count = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return std::nullopt;
  return static_cast<size_t>(count);
}

bool MessageSocket::hungUp() const {
  pollfd entry{socket_.get(), 0, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLERR));
}

}  // namespace vdpa::vhost_user
