#include "common/netlink/request.h"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "common/mac_address.h"

namespace vdpa::netlink {

Request::Request(uint16_t type, uint16_t flags) {
  header()->nlmsg_len = NLMSG_HDRLEN;
  header()->nlmsg_type = type;
  header()->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
}

void Request::require(bool added) const {
  if (!added)
    throw std::length_error(
        fmt::format("a netlink request has room for {} bytes, and needs more", buffer_.size()));
}

void* Request::addBody(size_t size) {
  const size_t start = header()->nlmsg_len, end = start + NLMSG_ALIGN(size);
  require(end <= buffer_.size());
  header()->nlmsg_len = static_cast<uint32_t>(end);
  return buffer_.data() + start;
}

// The bytes between an attribute's value and the next attribute stay zero.
nlattr* Request::append(uint16_t type, const void* data, size_t size) {
  const size_t start = NLMSG_ALIGN(header()->nlmsg_len);
  require(size <= buffer_.size() && start + NLA_HDRLEN + NLA_ALIGN(size) <= buffer_.size());
  auto* attribute = reinterpret_cast<nlattr*>(buffer_.data() + start);
  attribute->nla_type = type;
  attribute->nla_len = static_cast<uint16_t>(NLA_HDRLEN + size);
  if (size > 0) std::memcpy(buffer_.data() + start + NLA_HDRLEN, data, size);
  header()->nlmsg_len = static_cast<uint32_t>(start + NLA_HDRLEN + NLA_ALIGN(size));
  return attribute;
}

void Request::bytes(uint16_t type, const void* data, size_t size) {
  append(type, data, size);
}

void Request::text(uint16_t type, const std::string& text) {
  bytes(type, text.c_str(), text.size() + 1);
}

void Request::mac(uint16_t type, const MacAddress& mac) {
  bytes(type, mac.bytes().data(), mac.bytes().size());
}

}  // namespace vdpa::netlink
