// A wrapper of the parts of CLI11 that the programs use: its header takes longer to compile than
// any of their files. The methods are CLI11's of similar names.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace vdpa {

// What may follow on an unfinished command line.
struct Completion {
  struct Word {
    std::string text, help;  // one line of help
  };
  std::vector<Word> words;
  bool file = false;  // any file's name may follow
};

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
  CommandOption choice(const std::string& names, T& value, const std::string& help,
                       const std::map<std::string, T>& choices) {
    std::map<std::string, int> numbers;
    for (const auto& [name, number] : choices) numbers[name] = static_cast<int>(number);
    return addChoice(
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

  // Completes a command line of `words` (without the program's name; the last one may be empty, and
  // is the one to be completed). `valuesOf` returns the possible values of the positional argument
  // of that name; nothing if it may be a file. The variables of options that precede the last word
  // get their values, as far as they are valid, before it is called.
  Completion complete(
      const std::vector<std::string>& words,
      const std::function<std::optional<std::vector<std::string>>(const std::string& name)>&
          valuesOf);

  // The exit status if the program must exit: after it has printed --help, --version or an error.
  std::optional<int> parse(int argc, char** argv);

 private:
  CommandOption addChoice(const std::string& names, std::function<void(int)> take,
                          const std::string& help, const std::map<std::string, int>& choices);

  std::unique_ptr<CLI::App> app_;
  CLI::App* current_;
  std::map<const CLI::Option*, std::vector<std::string>> choices_;
};

}  // namespace vdpa
