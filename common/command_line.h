// A wrapper of the parts of CLI11 that the programs use: its header takes longer to compile than
// any of their files. The methods are CLI11's of similar names.
#pragma once

#include <functional>
#include <map>
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
  CommandOption showDefault(const std::string& text);  // in --help: `text`
  CommandOption needs(CommandOption other);
  CommandOption excludes(CommandOption other);
  CommandOption range(int least, int most);
  CommandOption range(unsigned least, unsigned most);
  CommandOption range(double least, double most);
  CommandOption expected(int least, int most);  // number of values
  // `error` returns the problem with a value, or an empty text; `type` names it in --help.
  CommandOption check(std::function<std::string(const std::string&)> error,
                      const std::string& type);
  bool given() const;  // after parse()

 private:
  CLI::Option* option_;
};

class CommandLine {
 public:
  explicit CommandLine(const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // `value` stays unchanged if the option isn't given. T: the types in command_line.cc.
  template <typename T>
  CommandOption option(const std::string& names, T& value, const std::string& help = "");
  // One of an enumeration's values, by their names.
  template <typename T>
  void choice(const std::string& names, T& value, const std::string& help,
              const std::map<std::string, T>& choices) {
    std::map<std::string, int> numbers;
    for (const auto& [name, number] : choices) numbers[name] = static_cast<int>(number);
    addChoice(
        names, [&value](int number) { value = static_cast<T>(number); }, help, numbers);
  }
  void flag(const std::string& names, bool& value, const std::string& help);
  void version(const std::string& text);  // of --version
  // Exactly one of the next options, until endGroup(), must be given.
  void group(const std::string& name, const std::string& help);
  void endGroup();
  // The next options belong to this sub-command. A sub-command must be given; it may precede the
  // options of the program itself.
  void subcommand(const std::string& name, const std::string& help);
  bool got(const std::string& subcommand) const;

  // The exit status if the program must exit: after it has printed --help, --version or an error.
  std::optional<int> parse(int argc, char** argv);

 private:
  void addChoice(const std::string& names, std::function<void(int)> take, const std::string& help,
                 const std::map<std::string, int>& choices);

  std::unique_ptr<CLI::App> app_;
  CLI::App* current_;
};

}  // namespace vdpa
