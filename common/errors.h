// Turns a failed system call into an exception: the operation, its object and the system's reason.
#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <exception>
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

// Its message, with a remedy for errors that always have the same one.
inline std::string withRemedy(const std::exception& error) {
  std::string message = error.what();
  const auto* system = dynamic_cast<const std::system_error*>(&error);
  if (!system) return message;
  if (system->code() == std::errc::no_space_on_device) return message + "; make room on its disk";
  if (system->code() == std::errc::read_only_file_system)
    return message + "; mount it writable again";
  return message;
}

}  // namespace vdpa
