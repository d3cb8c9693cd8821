// The messages of a datagram: each has a header, a structure of its family, and attributes.
//
// Source: struct nlmsghdr in include/uapi/linux/netlink.h.
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/netlink/attributes.h"

namespace vdpa::netlink {

// Borrows the datagram's bytes.
class Message {
 public:
  explicit Message(const nlmsghdr* header) : header_(header) {}

  uint16_t type() const { return header_->nlmsg_type; }
  uint16_t flags() const { return header_->nlmsg_flags; }
  uint32_t sequence() const { return header_->nlmsg_seq; }
  uint32_t port() const { return header_->nlmsg_pid; }
  Bytes payload() const {
    return {reinterpret_cast<const std::byte*>(header_) + NLMSG_HDRLEN,
            header_->nlmsg_len - NLMSG_HDRLEN};
  }
  // The family's structure; nothing if the message is too short for it.
  template <typename Body>
  std::optional<Body> body() const {
    return structureAt<Body>(payload());
  }
  // The attributes that follow a body of `size` bytes.
  Attributes attributes(size_t size) const {
    return Attributes(payload().subspan(std::min<size_t>(NLMSG_ALIGN(size), payload().size())));
  }
  template <typename Body>
  Attributes attributes() const {
    return attributes(sizeof(Body));
  }

 private:
  const nlmsghdr* header_;
};

// Goes through a datagram, whose bytes it borrows and which starts at a multiple of 4.
class Messages {
 public:
  explicit Messages(Bytes datagram) : left_(datagram) {}

  // Nothing at the end, or before bytes that are no whole message.
  std::optional<Message> next() {
    const auto* header = reinterpret_cast<const nlmsghdr*>(left_.data());
    if (left_.size() < NLMSG_HDRLEN || header->nlmsg_len < NLMSG_HDRLEN ||
        header->nlmsg_len > left_.size())
      return std::nullopt;
    left_ = left_.subspan(std::min<size_t>(NLMSG_ALIGN(header->nlmsg_len), left_.size()));
    return Message(header);
  }
  // The bytes that are left then: none if the datagram was well formed.
  Bytes rest() const { return left_; }

 private:
  Bytes left_;
};

}  // namespace vdpa::netlink
