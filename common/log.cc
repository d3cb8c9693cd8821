// Logged text may come from a pod, a network's configuration or another plugin, so it must stay
// within its line. spdlog's patterns escape nothing: our own formatter flags do.
#include "common/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <ctime>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/json.h"

namespace vdpa {
namespace {

// Formatted by spdlog, which catches exceptions.
struct Message {
  fmt::string_view format;
  fmt::format_args arguments;
};

}  // namespace
}  // namespace vdpa

template <>
struct fmt::formatter<vdpa::Message> {
  constexpr auto parse(format_parse_context& context) { return context.begin(); }
  auto format(const vdpa::Message& message, format_context& context) const {
    return vformat_to(context.out(), message.format, message.arguments);
  }
};

namespace vdpa {
namespace {

static_assert(static_cast<int>(log::Level::trace) == SPDLOG_LEVEL_TRACE &&
              static_cast<int>(log::Level::error) == SPDLOG_LEVEL_ERROR);

class JsonMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string text(message.payload.data(), message.payload.size());
    const std::string quoted = anyJsonText(text);
    out.append(quoted.data(), quoted.data() + quoted.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

class TextMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    for (const char c : message.payload) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f)
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
      else
        out.push_back(c);
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<TextMessage>();
  }
};

}  // namespace

void initLogging(const std::string& program, const std::string& level, const std::string& format) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off")
    throw std::invalid_argument("log level '" + level +
                                "': expected trace, debug, info, warning, error or off");

  auto logger =
      std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (format == "json") {
    formatter->add_flag<JsonMessage>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","program":"%n","message":%*})");
  } else if (format == "text") {
    formatter->add_flag<TextMessage>('*').set_pattern("%Y-%m-%d %H:%M:%S.%e %-7l %n: %*");
  } else {
    throw std::invalid_argument("log format '" + format + "': expected text or json");
  }
  logger->set_formatter(std::move(formatter));
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

namespace log {

Level lowest() {
  return static_cast<Level>(spdlog::get_level());
}

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::log(static_cast<spdlog::level::level_enum>(level), "{}", Message{format, arguments});
}

}  // namespace log
}  // namespace vdpa
