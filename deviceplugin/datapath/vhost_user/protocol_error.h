// A fault of a front-end. It ends the front-end's session; the text is logged.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace vdpa::vhost_user {

class ProtocolError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[nodiscard]] ProtocolError protocolError(fmt::format_string<Args...> format, Args&&... args) {
  return ProtocolError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace vdpa::vhost_user
