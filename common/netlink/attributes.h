// Reads the attributes of netlink messages. Whatever the bytes are, nothing outside of them is
// read: an attribute that its length does not fit ends the list, a value of another size is no
// value.
//
// Source: struct nlattr in include/uapi/linux/netlink.h; lib/nlattr.c in Linux 6.12.
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "common/mac_address.h"

namespace vdpa::netlink {

using Bytes = std::span<const std::byte>;

// The structure at the start of `bytes`; the rest is ignored: newer kernels have longer ones.
// Nothing if there are fewer bytes.
template <typename Structure>
std::optional<Structure> structureAt(Bytes bytes) {
  static_assert(std::is_trivially_copyable_v<Structure>);
  Structure structure;
  if (bytes.size() < sizeof structure) return std::nullopt;
  std::memcpy(&structure, bytes.data(), sizeof structure);
  return structure;
}

class Attributes;

// Borrows the message's bytes.
class Attribute {
 public:
  explicit Attribute(const nlattr* attribute) : attribute_(attribute) {}

  uint16_t type() const { return attribute_->nla_type & NLA_TYPE_MASK; }
  Bytes bytes() const {
    return {reinterpret_cast<const std::byte*>(attribute_) + NLA_HDRLEN,
            static_cast<size_t>(attribute_->nla_len - NLA_HDRLEN)};
  }
  // In the machine's byte order; nothing if the value has another size.
  template <typename Number>
  std::optional<Number> number() const {
    static_assert(std::is_integral_v<Number>);
    return bytes().size() == sizeof(Number) ? structureAt<Number>(bytes()) : std::nullopt;
  }
  template <typename Structure>
  std::optional<Structure> structure() const {
    return structureAt<Structure>(bytes());
  }
  // Up to the first zero, or all of it.
  std::string text() const {
    const auto* start = reinterpret_cast<const char*>(bytes().data());
    return {start, std::find(start, start + bytes().size(), '\0')};
  }
  std::optional<MacAddress> mac() const {
    const auto octets = structure<MacAddress::Bytes>();
    return octets && bytes().size() == sizeof *octets ? std::optional(MacAddress(*octets))
                                                      : std::nullopt;
  }
  Attributes nested() const;

 private:
  const nlattr* attribute_;
};

// A list of attributes, for a range-based `for`. Borrows the bytes, which start at a multiple of 4
// as they do in a message.
class Attributes {
 public:
  explicit Attributes(Bytes bytes) : bytes_(bytes) {}

  Bytes bytes() const { return bytes_; }

  struct End {};
  class Iterator {
   public:
    explicit Iterator(Bytes left) : left_(left) {}
    Attribute operator*() const { return Attribute(first()); }
    Iterator& operator++() {
      left_ = left_.subspan(
          std::min<size_t>(static_cast<size_t>(NLA_ALIGN(first()->nla_len)), left_.size()));
      return *this;
    }
    bool operator==(End) const {
      return left_.size() < NLA_HDRLEN || first()->nla_len < NLA_HDRLEN ||
             first()->nla_len > left_.size();
    }

   private:
    const nlattr* first() const { return reinterpret_cast<const nlattr*>(left_.data()); }
    Bytes left_;
  };
  Iterator begin() const { return Iterator(bytes_); }
  End end() const { return {}; }

 private:
  Bytes bytes_;
};

inline Attributes Attribute::nested() const {
  return Attributes(bytes());
}

}  // namespace vdpa::netlink
