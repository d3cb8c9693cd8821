// One logging set-up for all programs: lines of text for people, JSON for collectors, always on
// standard error.
#pragma once

#include <fmt/core.h>

#include <string>

namespace vdpa {

// `level`: trace, debug, info, warning, error or off. `format`: text or json. Throws
// std::invalid_argument with the expected values. Call once, at the start of main, before there are
// threads; until then `info` and more is logged, as text.
void initLogging(const std::string& program, const std::string& level, const std::string& format);

namespace log {

enum class Level { trace, debug, info, warn, error, off };  // nothing is logged at `off`

// The lowest logged level; above error if nothing is logged.
Level lowest();

// From any thread. Doesn't throw: its own failures are on standard error too.
void write(Level level, fmt::string_view format, fmt::format_args arguments);

template <typename... Arguments>
void at(Level level, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(level, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::debug, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::info, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void warn(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::warn, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::error, format, fmt::make_format_args(arguments...));
}

}  // namespace log
}  // namespace vdpa
