// How a failed system call becomes an exception: what was tried, on what, and the system's reason.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace vdpa {

// "cannot open /run/vdpa/x: Permission denied". `error` is an errno value.
template <typename... Args>
[[nodiscard]] std::system_error systemError(int error, fmt::format_string<Args...> format,
                                            Args&&... args) {
  return std::system_error(error, std::generic_category(),
                           fmt::format(format, std::forward<Args>(args)...));
}

// Returns `result`, or throws with the current errno if it is negative.
template <typename... Args>
int checked(int result, fmt::format_string<Args...> format, Args&&... args) {
  if (result < 0) {
    const int error = errno;
    throw systemError(error, format, std::forward<Args>(args)...);
  }
  return result;
}

}  // namespace vdpa
