// Strict reading of one YAML map: every key must be known, appear once and have the right type.
// Errors give the place in the file.
#pragma once

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>
#include <vector>

namespace vdpa::plugin {

class YamlMap {
 public:
  // `what` names the map in errors ("resource"). Throws ConfigError unless `node` is a map of known
  // keys.
  YamlMap(const YAML::Node& node, std::string file, std::string what,
          const std::vector<std::string>& keys);

  // The value of `key`; undefined (false) if absent.
  YAML::Node get(const std::string& key) const;
  YAML::Node require(const std::string& key, const std::string& expected) const;

  // A quoted or plain scalar.
  std::optional<std::string> text(const std::string& key, const std::string& expected) const;
  // A plain whole number within the bounds.
  std::optional<unsigned> number(const std::string& key, unsigned low, unsigned high) const;

  std::optional<bool> flag(const std::string& key) const;
  // The entries of a list that isn't empty; none if the key is absent.
  std::vector<YAML::Node> list(const std::string& key) const;
  // The index of the value among `words`.
  std::optional<size_t> word(const std::string& key, const std::vector<const char*>& words) const;

  // A value for a message, limited to a line.
  static std::string shown(const YAML::Node& node);

  // Throws ConfigError at the place of `node`.
  [[noreturn]] void fail(const YAML::Node& node, const std::string& problem,
                         const std::string& expected) const;

 private:
  YAML::Node node_;
  std::string file_;
  std::string what_;
};

// "FILE:LINE:COLUMN", counted from 1.
std::string placeOf(const std::string& file, const YAML::Mark& mark);

}  // namespace vdpa::plugin
