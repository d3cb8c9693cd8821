// Rules: CNI specification, "Section 2: Execution Protocol".
#include "cni/environment.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cni/error.h"

namespace vdpa::cni {
namespace {

struct Rule {
  Command command;
  const char* name;
  bool containerId, netns, interface, path;
};

constexpr Rule kRules[] = {
    {Command::add, "ADD", true, true, true, false},
    {Command::del, "DEL", true, false, true, false},
    {Command::check, "CHECK", true, true, true, false},
    {Command::gc, "GC", false, false, false, true},
    {Command::status, "STATUS", false, false, false, false},
    {Command::version, "VERSION", false, false, false, false},
};

bool isIdentifier(const std::string& text) {
  const auto alnum = [](unsigned char c) { return std::isalnum(c) != 0; };
  return !text.empty() && alnum(static_cast<unsigned char>(text.front())) &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return alnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
         });
}

bool isInterfaceName(const std::string& name) {
  return !name.empty() && name.size() <= 15 && name != "." && name != ".." &&
         name.find_first_of("/: \t\n\v\f\r") == std::string::npos;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

std::vector<std::string> parsePath(const std::string& text) {
  std::vector<std::string> directories;
  for (const auto& directory : split(text, ':'))
    if (std::find(directories.begin(), directories.end(), directory) == directories.end())
      directories.push_back(directory);
  return directories;
}

void requireNamespace(const std::string& path) {
  if (path.front() != '/')
    throw Error(Code::invalidEnvironment,
                fmt::format("CNI_NETNS '{}': expected an absolute path", path));
  if (::access(path.c_str(), F_OK) < 0)
    throw Error(Code::invalidEnvironment,
                fmt::format("CNI_NETNS '{}': {}", path, std::strerror(errno)));
}

std::map<std::string, std::string> parseArgs(const std::string& text) {
  std::map<std::string, std::string> args;
  for (const auto& pair : split(text, ';')) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      throw Error(Code::invalidEnvironment,
                  fmt::format("CNI_ARGS: '{}' is not of the form KEY=VALUE", pair));
    args[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return args;
}

}  // namespace

const char* commandName(Command command) {
  return std::find_if(std::begin(kRules), std::end(kRules),
                      [&](const Rule& rule) { return rule.command == command; })
      ->name;
}

Environment readEnvironment(const std::function<const char*(const char*)>& get) {
  const auto value = [&](const char* name) {
    const char* text = get(name);
    return std::string(text ? text : "");
  };
  const std::string command = value("CNI_COMMAND");
  if (command.empty())
    throw Error(Code::invalidEnvironment,
                "CNI_COMMAND is not set; this program is called by a container runtime");
  const auto rule = std::find_if(std::begin(kRules), std::end(kRules),
                                 [&](const Rule& r) { return command == r.name; });
  if (rule == std::end(kRules))
    throw Error(
        Code::invalidEnvironment,
        fmt::format("CNI_COMMAND '{}': expected ADD, DEL, CHECK, GC, STATUS or VERSION", command));

  Environment environment;
  environment.command = rule->command;
  if (rule->command == Command::version) return environment;
  environment.containerId = value("CNI_CONTAINERID");
  environment.netns = value("CNI_NETNS");
  environment.interface = value("CNI_IFNAME");
  environment.path = parsePath(value("CNI_PATH"));
  environment.socketRoots = parsePath(value("VDPA_CNI_ROOTS"));

  std::string missing;
  const auto require = [&](bool required, bool present, const char* name) {
    if (required && !present) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name);
  };
  require(rule->containerId, !environment.containerId.empty(), "CNI_CONTAINERID");
  require(rule->netns, !environment.netns.empty(), "CNI_NETNS");
  require(rule->interface, !environment.interface.empty(), "CNI_IFNAME");
  require(rule->path, !environment.path.empty(), "CNI_PATH");
  if (!missing.empty())
    throw Error(Code::invalidEnvironment, fmt::format("{} needs {}", command, missing));

  if (rule->containerId && !isIdentifier(environment.containerId))
    throw Error(Code::invalidEnvironment,
                fmt::format("CNI_CONTAINERID '{}': expected a letter or digit, then letters, "
                            "digits, '_', '.' or '-'",
                            environment.containerId));
  if (rule->interface && !isInterfaceName(environment.interface))
    throw Error(
        Code::invalidEnvironment,
        fmt::format("CNI_IFNAME '{}': expected at most 15 bytes without '/', ':' or white space",
                    environment.interface));
  // The others don't use them, and DEL must not fail for them.
  if (rule->netns) {
    requireNamespace(environment.netns);
    environment.args = parseArgs(value("CNI_ARGS"));
  }
  return environment;
}

}  // namespace vdpa::cni
