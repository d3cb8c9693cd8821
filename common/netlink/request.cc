#include "common/netlink/request.h"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/mac_address.h"

namespace vdpa::netlink {

Request::Request(uint16_t type, uint16_t flags) {
  nlmsghdr* message = mnl_nlmsg_put_header(buffer_.data());
  message->nlmsg_type = type;
  message->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
}

void Request::require(bool added) const {
  if (!added)
    throw std::length_error(
        fmt::format("a netlink request has room for {} bytes, and needs more", buffer_.size()));
}

void* Request::addBody(size_t size) {
  require(message().size() + MNL_ALIGN(size) <= buffer_.size());
  return mnl_nlmsg_put_extra_header(header(), size);
}

void Request::bytes(uint16_t type, const void* data, size_t size) {
  require(size <= UINT16_MAX && mnl_attr_put_check(header(), buffer_.size(), type, size, data));
}

void Request::text(uint16_t type, const std::string& text) {
  bytes(type, text.c_str(), text.size() + 1);
}

void Request::mac(uint16_t type, const MacAddress& mac) {
  bytes(type, mac.bytes().data(), mac.bytes().size());
}

nlattr* Request::startNest(uint16_t type) {
  nlattr* start = mnl_attr_nest_start_check(header(), buffer_.size(), type);
  require(start != nullptr);
  return start;
}

}  // namespace vdpa::netlink
