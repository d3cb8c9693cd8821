#include "common/control_stream.h"

#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

constexpr size_t kHeader = 5;  // bytes of a frame before the message
constexpr size_t kRead = 16384;
static_assert(ControlStream::kMaxMessage < 1 << 24, "the first byte of a frame is 0");

union ControlBuffer {
  cmsghdr alignment;
  char bytes[CMSG_SPACE(Descriptors::kMax * sizeof(int))];
};

std::string frameOf(const std::string& bytes, size_t descriptors) {
  std::string frame;
  frame.reserve(kHeader + bytes.size());
  for (int shift = 24; shift >= 0; shift -= 8)
    frame.push_back(static_cast<char>(bytes.size() >> shift & 0xff));
  frame.push_back(static_cast<char>(descriptors));
  return frame += bytes;
}

size_t lengthOf(const std::string& input) {
  size_t length = 0;
  for (size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<uint8_t>(input[i]);
  return length;
}

}  // namespace

control::Descriptor Descriptors::add(UniqueFd descriptor) {
  if (all_.size() == kMax)
    throw std::length_error(fmt::format("a message can't have more than {} descriptors", kMax));
  control::Descriptor field;
  field.set_index(static_cast<uint32_t>(all_.size()));
  all_.push_back(std::move(descriptor));
  return field;
}

UniqueFd Descriptors::take(const control::Descriptor& field) {
  if (field.index() >= all_.size() || !all_[field.index()])
    throw std::runtime_error(fmt::format("descriptor {} is missing: {} came with the message",
                                         field.index(), all_.size()));
  return std::move(all_[field.index()]);
}

ControlStream::ControlStream(UniqueFd socket, size_t maxMessage)
    : socket_(std::move(socket)), maxMessage_(std::min(maxMessage, kMaxMessage)) {}

void ControlStream::send(Message message) {
  if (message.format == Format::line && !message.descriptors.empty())
    throw std::logic_error("a line of JSON can't have descriptors");
  if (message.bytes.size() > kMaxMessage)
    throw std::runtime_error(fmt::format("a message of {} bytes is too large: at most {} are sent",
                                         message.bytes.size(), kMaxMessage));
  if (unsentBytes_ + message.bytes.size() > kMaxUnsent)
    throw std::runtime_error(
        fmt::format("the other side does not read: {} bytes wait for it", unsentBytes_));
  std::string bytes = message.format == Format::frame
                          ? frameOf(message.bytes, message.descriptors.size())
                          : std::move(message.bytes) + "\n";
  unsentBytes_ += bytes.size();
  // Descriptors go with the first byte of what is written.
  if (!unsent_.empty() && unsent_.back().descriptors.empty() && message.descriptors.empty())
    unsent_.back().bytes += bytes;
  else
    unsent_.push_back({std::move(bytes), std::move(message.descriptors)});
  flush();
}

ssize_t ControlStream::sendSome(const Unsent& part) {
  // sendmsg(2) takes pointers to what it does not change.
  iovec data{const_cast<char*>(part.bytes.data()), part.bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  ControlBuffer buffer{};
  if (!part.descriptors.empty()) {
    const size_t size = part.descriptors.size() * sizeof(int);
    message.msg_control = buffer.bytes;
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    unsigned char* next = CMSG_DATA(header);
    for (const auto& descriptor : part.descriptors.all_) {
      const int number = descriptor.get();
      std::memcpy(next, &number, sizeof number);
      next += sizeof number;
    }
  }
  return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
}

bool ControlStream::flush() {
  while (!unsent_.empty()) {
    Unsent& part = unsent_.front();
    const ssize_t count = sendSome(part);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) {
      const int error = errno;
      unsent_.clear();
      unsentBytes_ = 0;
      // receive() finds the end, after the messages before it.
      if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) break;
      ::shutdown(socket_.get(), SHUT_RDWR);  // a part of a message may have been sent
      throw systemError(error, "cannot send on a control connection");
    }
    part.descriptors.all_.clear();
    part.bytes.erase(0, static_cast<size_t>(count));
    unsentBytes_ -= static_cast<size_t>(count);
    if (part.bytes.empty()) unsent_.pop_front();
  }
  return true;
}

// Of a frame never more than is left of it, so that the descriptors that come with its bytes are
// its own.
size_t ControlStream::wanted() const {
  if (input_.empty()) return kHeader;
  if (input_[0] != 0) return kRead;
  if (input_.size() < kHeader) return kHeader - input_.size();
  return std::min(kRead, kHeader + lengthOf(input_) - input_.size());
}

ssize_t ControlStream::receiveSome() {
  char bytes[kRead];
  iovec data{bytes, wanted()};
  ControlBuffer buffer;
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = buffer.bytes;
  message.msg_controllen = sizeof buffer.bytes;
  const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  if (count <= 0) return count;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + sizeof(int) <= header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header) + at, sizeof number);
      received_.emplace_back(number);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0 || received_.size() > Descriptors::kMax)
    throw std::runtime_error(
        fmt::format("more than {} descriptors came with a message", Descriptors::kMax));
  input_.append(bytes, static_cast<size_t>(count));
  return count;
}

bool ControlStream::receive(const std::function<void(Message message)>& onMessage) {
  for (;;) {
    const ssize_t count = receiveSome();
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return true;
    if (count <= 0) return false;
    while (auto message = next()) onMessage(std::move(*message));
  }
}

void ControlStream::checkSize(size_t size) const {
  if (size > maxMessage_)
    throw std::runtime_error(
        fmt::format("a message of {} bytes: at most {} are expected", size, maxMessage_));
}

std::optional<ControlStream::Message> ControlStream::next() {
  if (input_.empty()) return std::nullopt;
  return input_[0] == 0 ? nextFrame() : nextLine();
}

std::optional<ControlStream::Message> ControlStream::nextLine() {
  const size_t newline = input_.find('\n');
  checkSize(std::min(newline, input_.size()));
  if (newline == std::string::npos) return std::nullopt;
  Message message{Format::line, input_.substr(0, newline), {}};
  input_.erase(0, newline + 1);
  if (input_.empty()) received_.clear();
  return message;
}

std::optional<ControlStream::Message> ControlStream::nextFrame() {
  if (input_.size() < kHeader) return std::nullopt;
  const size_t length = lengthOf(input_);
  const size_t descriptors = static_cast<uint8_t>(input_[kHeader - 1]);
  checkSize(length);
  if (input_.size() < kHeader + length) return std::nullopt;
  if (received_.size() < descriptors)
    throw std::runtime_error(fmt::format("of a message's {} descriptors only {} came with it",
                                         descriptors, received_.size()));
  Message message{Format::frame, input_.substr(kHeader, length), {}};
  const auto end = received_.begin() + static_cast<ptrdiff_t>(descriptors);
  std::move(received_.begin(), end, std::back_inserter(message.descriptors.all_));
  received_.erase(received_.begin(), end);
  input_.erase(0, kHeader + length);
  if (input_.empty()) received_.clear();  // surplus
  return message;
}

}  // namespace vdpa
