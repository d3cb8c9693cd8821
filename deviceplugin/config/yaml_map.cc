#include "deviceplugin/config/yaml_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "deviceplugin/config/config.h"

namespace vdpa::plugin {
namespace {

constexpr size_t kMaxList = 1024;  // a node's maximum number of VFs

const char* kindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a map";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return "a value";
    default:
      return "nothing";
  }
}

}  // namespace

std::string placeOf(const std::string& file, const YAML::Mark& mark) {
  return fmt::format("{}:{}:{}", file, mark.line + 1, mark.column + 1);
}

YamlMap::YamlMap(const YAML::Node& node, std::string file, std::string what,
                 const std::vector<std::string>& keys)
    : node_(node), file_(std::move(file)), what_(std::move(what)) {
  const std::string expected = fmt::format("one of {}", fmt::join(keys, ", "));
  if (!node.IsMap())
    fail(node, fmt::format("{} is {}", what_, kindOf(node)), "a map with " + expected);
  std::set<std::string> seen;
  for (const auto& pair : node) {
    if (!pair.first.IsScalar())
      fail(pair.first, fmt::format("a key of {} is {}", what_, kindOf(pair.first)), expected);
    const std::string key = pair.first.Scalar();
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      fail(pair.first, fmt::format("unknown key '{}' in {}", key.substr(0, 80), what_), expected);
    if (!seen.insert(key).second)
      fail(pair.first, fmt::format("key '{}' appears twice in {}", key, what_), "each key once");
  }
}

YAML::Node YamlMap::get(const std::string& key) const {
  for (const auto& pair : node_)
    if (pair.first.Scalar() == key) return pair.second;
  return YAML::Node(YAML::NodeType::Undefined);
}

YAML::Node YamlMap::require(const std::string& key, const std::string& expected) const {
  const YAML::Node value = get(key);
  if (!value.IsDefined()) fail(node_, fmt::format("{} lacks '{}'", what_, key), expected);
  return value;
}

std::optional<std::string> YamlMap::text(const std::string& key,
                                         const std::string& expected) const {
  const YAML::Node value = get(key);
  if (!value.IsDefined()) return std::nullopt;
  if (!value.IsScalar()) fail(value, fmt::format("{} is {}", key, kindOf(value)), expected);
  return value.Scalar();
}

std::optional<unsigned> YamlMap::number(const std::string& key, unsigned low, unsigned high) const {
  const YAML::Node value = get(key);
  if (!value.IsDefined()) return std::nullopt;
  const std::string expected = fmt::format("a whole number from {} to {}", low, high);
  unsigned number = 0;
  const std::string digits = value.IsScalar() ? value.Scalar() : "";
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool quoted = value.Tag() == "!";
  if (quoted || digits.empty() || parsed.ec != std::errc() ||
      parsed.ptr != digits.data() + digits.size() || number < low || number > high)
    fail(value, fmt::format("{} is {}{}", key, shown(value), quoted ? " in quotes" : ""), expected);
  return number;
}

std::optional<bool> YamlMap::flag(const std::string& key) const {
  const YAML::Node value = get(key);
  if (!value.IsDefined()) return std::nullopt;
  const std::string text = value.IsScalar() && value.Tag() != "!" ? value.Scalar() : "";
  if (text != "true" && text != "false")
    fail(value, fmt::format("{} is {}", key, shown(value)), "true or false");
  return text == "true";
}

std::vector<YAML::Node> YamlMap::list(const std::string& key) const {
  const YAML::Node value = get(key);
  if (!value.IsDefined()) return {};
  if (!value.IsSequence() || value.size() == 0 || value.size() > kMaxList)
    fail(value,
         value.IsSequence() ? fmt::format("{} has {} entries", key, value.size())
                            : fmt::format("{} is {}", key, shown(value)),
         fmt::format("a list of 1 to {} entries", kMaxList));
  return {value.begin(), value.end()};
}

std::optional<size_t> YamlMap::word(const std::string& key,
                                    const std::vector<const char*>& words) const {
  const std::string expected = fmt::format("{}", fmt::join(words, " or "));
  const auto value = text(key, expected);
  if (!value) return std::nullopt;
  for (size_t i = 0; i < words.size(); ++i)
    if (*value == words[i]) return i;
  fail(get(key), fmt::format("{} is '{}'", key, value->substr(0, 80)), expected);
}

std::string YamlMap::shown(const YAML::Node& node) {
  return node.IsScalar() ? fmt::format("'{}'", node.Scalar().substr(0, 80)) : kindOf(node);
}

void YamlMap::fail(const YAML::Node& node, const std::string& problem,
                   const std::string& expected) const {
  throw ConfigError(
      fmt::format("{}: {}; expected {}", placeOf(file_, node.Mark()), problem, expected));
}

}  // namespace vdpa::plugin
