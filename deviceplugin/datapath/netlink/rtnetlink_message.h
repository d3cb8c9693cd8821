// The parts of rtnetlink requests: a buffer with a header, and addresses with prefix length.
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace vdpa::datapath {

class RtnetlinkRequest {
 public:
  RtnetlinkRequest(uint16_t type, uint16_t flags) : header_(mnl_nlmsg_put_header(buffer_.data())) {
    header_->nlmsg_type = type;
    header_->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  }
  template <typename Body>
  Body& body() {
    return *static_cast<Body*>(mnl_nlmsg_put_extra_header(header_, sizeof(Body)));
  }
  nlmsghdr* get() { return header_; }

 private:
  alignas(nlmsghdr) std::array<char, 1024> buffer_{};
  nlmsghdr* header_;
};

// Replaces mnl_attr_for_each(), which is C only; `offset` is the length of the body.
template <typename Function>
void forEachAttribute(const nlmsghdr* message, size_t offset, Function function) {
  const auto* tail = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  for (auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, offset));
       mnl_attr_ok(attribute, static_cast<int>(tail - reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute))
    function(attribute);
}

struct IpPrefix {
  uint8_t family = 0;
  uint8_t length = 0;  // bits
  std::vector<uint8_t> bytes;

  // With the bits after the prefix cleared.
  IpPrefix network() const;
  // "10.0.0.2/24", as the kernel would write it.
  std::string text() const;
};

// "10.0.0.2/24", or an address alone. Throws std::system_error.
IpPrefix parsePrefix(const std::string& text);

}  // namespace vdpa::datapath
