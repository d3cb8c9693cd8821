// CLI11 behind what the daemons use of it: its header takes longer to compile than any file of
// theirs. The methods are CLI11's of similar names.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace vdpa {

// Valid while its CommandLine is.
class CommandOption {
 public:
  explicit CommandOption(CLI::Option* option) : option_(option) {}

  CommandOption required();
  CommandOption showDefault();                         // in --help: the variable's value
  CommandOption showDefault(const std::string& text);  // or this
  CommandOption needs(CommandOption other);
  CommandOption excludes(CommandOption other);
  CommandOption range(int least, int most);
  CommandOption range(unsigned least, unsigned most);
  // `error` returns what is wrong with a value, or nothing; `type` names it in --help.
  CommandOption check(std::function<std::string(const std::string&)> error,
                      const std::string& type);

 private:
  CLI::Option* option_;
};

class CommandLine {
 public:
  explicit CommandLine(const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // `value` is what it was if the option isn't given. Of the types in command_line.cc.
  template <typename T>
  CommandOption option(const std::string& names, T& value, const std::string& help = "");
  void flag(const std::string& names, bool& value, const std::string& help);
  void version(const std::string& text);  // of --version
  // The next options, of which exactly one has to be given, until endGroup().
  void group(const std::string& name, const std::string& help);
  void endGroup();

  // The exit status if the program has to end: after --help, --version or an error, all of which
  // are printed.
  std::optional<int> parse(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
  CLI::App* current_;
};

}  // namespace vdpa
