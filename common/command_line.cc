#include "common/command_line.h"

// Its validators of files are not used.
#define CLI11_HAS_FILESYSTEM 0
#include <CLI/CLI.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vdpa {

CommandOption CommandOption::required() {
  return CommandOption(option_->required());
}

CommandOption CommandOption::showDefault() {
  return CommandOption(option_->capture_default_str());
}

CommandOption CommandOption::showDefault(const std::string& text) {
  return CommandOption(option_->default_str(text));
}

CommandOption CommandOption::needs(CommandOption other) {
  return CommandOption(option_->needs(other.option_));
}

CommandOption CommandOption::excludes(CommandOption other) {
  return CommandOption(option_->excludes(other.option_));
}

CommandOption CommandOption::range(int least, int most) {
  return CommandOption(option_->check(CLI::Range(least, most)));
}

CommandOption CommandOption::range(unsigned least, unsigned most) {
  return CommandOption(option_->check(CLI::Range(least, most)));
}

CommandOption CommandOption::range(double least, double most) {
  return CommandOption(option_->check(CLI::Range(least, most)));
}

CommandOption CommandOption::expected(int least, int most) {
  return CommandOption(option_->expected(least, most));
}

bool CommandOption::given() const {
  return option_->count() > 0;
}

CommandOption CommandOption::check(std::function<std::string(const std::string&)> error,
                                   const std::string& type) {
  return CommandOption(option_->check(CLI::Validator(
      [error = std::move(error)](const std::string& text) { return error(text); }, type)));
}

CommandLine::CommandLine(const std::string& description)
    : app_(std::make_unique<CLI::App>(description)), current_(app_.get()) {}

CommandLine::~CommandLine() = default;

template <typename T>
CommandOption CommandLine::option(const std::string& names, T& value, const std::string& help) {
  return CommandOption(current_->add_option(names, value, help));
}
template CommandOption CommandLine::option(const std::string&, std::string&, const std::string&);
template CommandOption CommandLine::option(const std::string&, std::vector<std::string>&,
                                           const std::string&);
template CommandOption CommandLine::option(const std::string&, uint32_t&, const std::string&);
template CommandOption CommandLine::option(const std::string&, uint64_t&, const std::string&);
template CommandOption CommandLine::option(const std::string&, double&, const std::string&);
template CommandOption CommandLine::option(const std::string&, int&, const std::string&);
template CommandOption CommandLine::option(const std::string&, std::optional<uint16_t>&,
                                           const std::string&);

void CommandLine::addChoice(const std::string& names, std::function<void(int)> take,
                            const std::string& help, const std::map<std::string, int>& choices) {
  enum class Choice : int {};  // --help says ENUM
  std::map<std::string, Choice> named;
  for (const auto& [name, number] : choices) named[name] = static_cast<Choice>(number);
  current_
      ->add_option_function<Choice>(
          names, [take = std::move(take)](const Choice& choice) { take(static_cast<int>(choice)); },
          help)
      ->transform(CLI::CheckedTransformer(named));
}

void CommandLine::flag(const std::string& names, bool& value, const std::string& help) {
  current_->add_flag(names, value, help);
}

void CommandLine::version(const std::string& text) {
  app_->set_version_flag("--version", text);
}

void CommandLine::group(const std::string& name, const std::string& help) {
  current_ = app_->add_option_group(name, help);
  current_->require_option(1);
}

void CommandLine::endGroup() {
  current_ = app_.get();
}

void CommandLine::subcommand(const std::string& name, const std::string& help) {
  app_->require_subcommand(1);
  app_->fallthrough();
  current_ = app_->add_subcommand(name, help);
}

bool CommandLine::got(const std::string& subcommand) const {
  return app_->got_subcommand(subcommand);
}

std::optional<int> CommandLine::parse(int argc, char** argv) {
  CLI11_PARSE(*app_, argc, argv);
  return std::nullopt;
}

}  // namespace vdpa
