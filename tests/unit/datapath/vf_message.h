// A link's attributes with VFs, as the kernel writes them (IFLA_VFINFO_LIST of linux/if_link.h).
#pragma once

#include <libmnl/libmnl.h>
#include <linux/if_link.h>

#include <array>
#include <cstddef>
#include <span>

class VfMessage {
 public:
  VfMessage() : header_(mnl_nlmsg_put_header(buffer_.data())) {
    mnl_attr_put_strz(header_, IFLA_IFNAME, "eth1");
    list_ = mnl_attr_nest_start(header_, IFLA_VFINFO_LIST);
  }
  // Adds a VF, whose attributes `put` writes to the header that it gets.
  template <typename Put>
  void addVf(Put put) {
    nlattr* info = mnl_attr_nest_start(header_, IFLA_VF_INFO);
    put(header_);
    mnl_attr_nest_end(header_, info);
  }
  // All of them, after the last VF.
  std::span<const std::byte> attributes() {
    mnl_attr_nest_end(header_, list_);
    return {reinterpret_cast<const std::byte*>(mnl_nlmsg_get_payload(header_)),
            mnl_nlmsg_get_payload_len(header_)};
  }

 private:
  alignas(nlmsghdr) std::array<char, 4096> buffer_{};
  nlmsghdr* header_;
  nlattr* list_;
};
