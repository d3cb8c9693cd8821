// Generic netlink: families with numbers that the kernel chooses.
//
// Source: include/uapi/linux/genetlink.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/netlink/request.h"
#include "common/netlink/socket.h"

namespace vdpa::netlink {

// With its body, to which attributes can be added.
Request genericRequest(uint16_t family, uint8_t command, uint8_t version);

// A family's number, on a socket of NETLINK_GENERIC; nothing if the kernel doesn't have it. Throws
// std::system_error.
std::optional<uint16_t> findFamily(Socket& socket, const std::string& name);

}  // namespace vdpa::netlink
