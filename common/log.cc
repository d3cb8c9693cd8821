// Logged text may come from a pod, a network's configuration or another plugin, so it must stay
// within its line.
#include "common/log.h"

#include <fmt/core.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <exception>
#include <iterator>
#include <stdexcept>
#include <string>

#include "common/json.h"

namespace vdpa {
namespace {

struct LevelName {
  const char* name;
  log::Level level;
};
// In the order of the enumeration, and what else initLogging() takes for them.
constexpr LevelName kLevels[] = {{"trace", log::Level::trace},  {"debug", log::Level::debug},
                                 {"info", log::Level::info},    {"warning", log::Level::warn},
                                 {"error", log::Level::error},  {"off", log::Level::off},
                                 {"critical", log::Level::off},  // no line is
                                 {"warn", log::Level::warn},    {"err", log::Level::error}};

// Of the process, as its standard error is. Written before there are threads.
struct Settings {
  std::string program;
  log::Level lowest = log::Level::info;
  bool json = false;
};

Settings& settings() {
  static Settings settings;
  return settings;
}

std::string escaped(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      line += fmt::format("\\x{:02x}", byte);
    else
      line.push_back(c);
  }
  return line;
}

// `time` in the node's zone, as strftime(3) has it.
std::string timeText(const char* format, const std::tm& time) {
  char text[64];
  return std::string(text, std::strftime(text, sizeof text, format, &time));
}

std::string lineOf(log::Level level, const std::string& message) {
  using std::chrono::milliseconds;
  const auto now =
      std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch());
  const std::time_t seconds = now.count() / 1000;
  std::tm time{};
  ::localtime_r(&seconds, &time);
  const char* name = kLevels[static_cast<size_t>(level)].name;
  const std::string& program = settings().program;
  if (!settings().json)
    return fmt::format("{}.{:03} {:7} {}: {}\n", timeText("%Y-%m-%d %H:%M:%S", time),
                       now.count() % 1000, name, program, escaped(message));
  const std::string zone = timeText("%z", time);  // +hhmm
  return fmt::format(
      "{{\"time\":\"{}.{:03}{}:{}\",\"level\":\"{}\",\"program\":\"{}\","
      "\"message\":{}}}\n",
      timeText("%Y-%m-%dT%H:%M:%S", time), now.count() % 1000, zone.substr(0, 3), zone.substr(3),
      name, program, anyJsonText(message));
}

}  // namespace

void initLogging(const std::string& program, const std::string& level, const std::string& format) {
  const auto* known = std::begin(kLevels);
  while (known != std::end(kLevels) && level != known->name) ++known;
  if (known == std::end(kLevels))
    throw std::invalid_argument("log level '" + level +
                                "': expected trace, debug, info, warning, error or off");
  if (format != "json" && format != "text")
    throw std::invalid_argument("log format '" + format + "': expected text or json");
  settings() = {program, known->level, format == "json"};
}

namespace log {

Level lowest() {
  return settings().lowest;
}

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  if (level < lowest()) return;
  try {
    const std::string line = lineOf(level, fmt::vformat(format, arguments));
    // Unbuffered, and one call: lines of several threads and processes stay whole.
    std::fwrite(line.data(), 1, line.size(), stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cannot log '%.*s': %s\n", static_cast<int>(format.size()), format.data(),
                 error.what());
  }
}

}  // namespace log
}  // namespace vdpa
