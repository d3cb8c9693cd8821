// Builds a request: a header, the structure of its family, attributes.
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "common/mac_address.h"
#include "common/netlink/attributes.h"

namespace vdpa::netlink {

// The functions that add something throw std::length_error if there is no room for it.
class Request {
 public:
  // NLM_F_REQUEST and what Socket needs beside it are set already.
  explicit Request(uint16_t type, uint16_t flags = 0);

  // Adds the family's structure, all zeros: once, before the attributes. Valid while the request
  // is.
  template <typename Body>
  Body& body() {
    static_assert(std::is_trivial_v<Body>);
    return *static_cast<Body*>(addBody(sizeof(Body)));
  }

  void bytes(uint16_t type, const void* data, size_t size);
  void text(uint16_t type, const std::string& text);  // with a final zero
  void mac(uint16_t type, const MacAddress& mac);
  // In the machine's byte order.
  template <typename Number>
  void number(uint16_t type, Number number) {
    static_assert(std::is_integral_v<Number>);
    bytes(type, &number, sizeof number);
  }
  template <typename Structure>
  void structure(uint16_t type, const Structure& structure) {
    static_assert(std::is_trivially_copyable_v<Structure>);
    bytes(type, &structure, sizeof structure);
  }
  // An attribute that holds those that `fill()` adds.
  template <typename Fill>
  void nest(uint16_t type, Fill fill) {
    nlattr* start = append(static_cast<uint16_t>(type | NLA_F_NESTED), nullptr, 0);
    fill();
    const auto* end = reinterpret_cast<std::byte*>(header()) + header()->nlmsg_len;
    start->nla_len = static_cast<uint16_t>(end - reinterpret_cast<std::byte*>(start));
  }

  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(buffer_.data()); }
  Bytes message() const {
    return {buffer_.data(), reinterpret_cast<const nlmsghdr*>(buffer_.data())->nlmsg_len};
  }

 private:
  void* addBody(size_t size);
  nlattr* append(uint16_t type, const void* data, size_t size);
  void require(bool added) const;

  alignas(nlmsghdr) std::array<std::byte, 1024> buffer_{};  // twice what the longest request needs
};

}  // namespace vdpa::netlink
