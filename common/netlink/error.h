// Why the kernel refused a request.
#pragma once

#include <fmt/core.h>

#include <string>
#include <system_error>
#include <utility>

#include "common/errors.h"

namespace vdpa::netlink {

struct [[nodiscard]] Error {
  int number = 0;    // errno; 0: the request was granted
  std::string text;  // the kernel's or the driver's own words; empty: it has none

  explicit operator bool() const { return number != 0; }
};

// "Operation not supported", after the kernel's own words if there are any.
inline std::string reason(const Error& error) {
  return (error.text.empty() ? "" : error.text + ": ") +
         std::generic_category().message(error.number);
}

// "cannot set the MTU 9000: mtu greater than device maximum: Invalid argument".
template <typename... Args>
[[nodiscard]] std::system_error failure(const Error& error, fmt::format_string<Args...> format,
                                        Args&&... args) {
  return systemError(error.number, "{}{}{}", fmt::format(format, std::forward<Args>(args)...),
                     error.text.empty() ? "" : ": ", error.text);
}

}  // namespace vdpa::netlink
