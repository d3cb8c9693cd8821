#include "common/netlink/generic.h"

#include <linux/genetlink.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>

#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"

namespace vdpa::netlink {

Request genericRequest(uint16_t family, uint8_t command, uint8_t version) {
  Request request(family);
  auto& body = request.body<genlmsghdr>();
  body.cmd = command;
  body.version = version;
  return request;
}

std::optional<uint16_t> findFamily(Socket& socket, const std::string& name) {
  constexpr uint8_t kVersion = 2;  // of the family that knows the others
  Request request = genericRequest(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, kVersion);
  request.text(CTRL_ATTR_FAMILY_NAME, name);
  std::optional<uint16_t> id;
  const Error error = socket.request(request, [&](const Message& message) {
    for (const Attribute attribute : message.attributes<genlmsghdr>())
      if (attribute.type() == CTRL_ATTR_FAMILY_ID) id = attribute.number<uint16_t>();
  });
  if (error && error.number != ENOENT)
    throw failure(error, "cannot look up netlink family {}", name);
  return id;
}

}  // namespace vdpa::netlink
