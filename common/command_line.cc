#include "common/command_line.h"

// Its validators of files are not used.
#define CLI11_HAS_FILESYSTEM 0
#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vdpa {
namespace {

std::string firstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// Where the next word of a command line belongs.
struct Position {
  CLI::App* app;                // the sub-command so far
  CLI::Option* open = nullptr;  // the option whose value the next word is
  int arguments = 0;            // positional ones passed so far

  // Options of the program may also follow a sub-command.
  CLI::Option* find(const std::string& name) const {
    for (CLI::App* level = app; level != nullptr; level = level->get_parent())
      if (auto* option = level->get_option_no_throw(name)) return option;
    return nullptr;
  }

  // The argument that the next word is; none if there are enough.
  const CLI::Option* positional() const {
    int before = arguments;
    for (const CLI::Option* option : app->get_options()) {
      if (option->nonpositional()) continue;
      if (before < option->get_items_expected_max()) return option;
      before -= option->get_items_expected_max();
    }
    return nullptr;
  }

  void pass(const std::string& word) {
    if (open != nullptr) {
      set(*open, word);
      open = nullptr;
    } else if (word.starts_with('-')) {
      const auto equals = word.find('=');
      auto* option = find(word.substr(0, equals));
      if (option != nullptr && equals != std::string::npos)
        set(*option, word.substr(equals + 1));
      else if (option != nullptr && option->get_items_expected_min() > 0)
        open = option;
    } else if (const auto commands = app->get_subcommands(
                   [&](const CLI::App* command) { return command->get_name() == word; });
               !commands.empty()) {
      app = commands.front();
      arguments = 0;
    } else {
      ++arguments;
    }
  }

  static void set(CLI::Option& option, const std::string& value) {
    try {
      option.add_result(value);
      option.run_callback();
    } catch (const CLI::Error&) {
      // The finished command line will be refused; until then its other words are completed.
    }
  }
};

}  // namespace

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

CommandOption CommandLine::addChoice(const std::string& names, std::function<void(int)> take,
                                     const std::string& help,
                                     const std::map<std::string, int>& choices) {
  enum class Choice : int {};  // --help says ENUM
  std::map<std::string, Choice> named;
  for (const auto& [name, number] : choices) named[name] = static_cast<Choice>(number);
  CLI::Option* option = current_->add_option_function<Choice>(
      names, [take = std::move(take)](const Choice& choice) { take(static_cast<int>(choice)); },
      help);
  option->transform(CLI::CheckedTransformer(named));
  for (const auto& [name, number] : choices) choices_[option].push_back(name);
  return CommandOption(option);
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

Completion CommandLine::complete(
    const std::vector<std::string>& words,
    const std::function<std::optional<std::vector<std::string>>(const std::string& name)>&
        valuesOf) {
  if (words.empty()) return {};
  Position at{app_.get()};
  for (size_t i = 0; i + 1 < words.size(); ++i) at.pass(words[i]);

  const std::string& last = words.back();
  const auto valuesFor = [&](const CLI::Option* option, const std::string& prefix) {
    Completion found;
    std::optional<std::vector<std::string>> values;
    if (const auto choices = choices_.find(option); choices != choices_.end())
      values = choices->second;
    else if (option->get_positional())
      values = valuesOf(option->get_name(true));
    for (const auto& value : values.value_or(std::vector<std::string>()))
      found.words.push_back({prefix + value, ""});
    found.file = !values && option->get_type_name().starts_with("TEXT");
    return found;
  };
  Completion found;
  if (at.open != nullptr) {
    found = valuesFor(at.open, "");
  } else if (const auto equals = last.find('=');
             last.starts_with('-') && equals != std::string::npos) {
    if (const auto* option = at.find(last.substr(0, equals)))
      found = valuesFor(option, last.substr(0, equals + 1));
  } else if (last.starts_with('-')) {
    for (CLI::App* app = at.app; app != nullptr; app = app->get_parent())
      for (const CLI::Option* option : app->get_options())
        if (option->nonpositional() && (app == at.app || option != app->get_help_ptr()))
          found.words.push_back({option->get_name(), firstLine(option->get_description())});
  } else {
    for (const CLI::App* command : at.app->get_subcommands([](const CLI::App*) { return true; }))
      found.words.push_back({command->get_name(), firstLine(command->get_description())});
    if (const auto* option = at.positional()) found = valuesFor(option, "");
  }
  std::erase_if(found.words, [&](const auto& word) { return !word.text.starts_with(last); });
  return found;
}

std::optional<int> CommandLine::parse(int argc, char** argv) {
  CLI11_PARSE(*app_, argc, argv);
  return std::nullopt;
}

}  // namespace vdpa
