// Typed access to a configuration's keys: a wrong type is an error that names the key.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cni/error.h"

namespace vdpa::cni {

inline std::string stringAt(const nlohmann::json& object, const char* key,
                            const std::string& otherwise = "") {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return otherwise;
  if (!found->is_string())
    throw Error(Code::invalidConfig,
                fmt::format("{}: expected a string, found {}", key, found->dump()));
  return found->get<std::string>();
}

inline nlohmann::json objectAt(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return nlohmann::json::object();
  if (!found->is_object())
    throw Error(Code::invalidConfig,
                fmt::format("{}: expected an object, found {}", key, found->dump()));
  return *found;
}

inline nlohmann::json arrayAt(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return nlohmann::json::array();
  if (!found->is_array())
    throw Error(Code::invalidConfig,
                fmt::format("{}: expected a list, found {}", key, found->dump()));
  return *found;
}

// A whole number from `low` to `high`.
inline std::optional<unsigned> numberAt(const nlohmann::json& object, const char* key, unsigned low,
                                        unsigned high) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (!found->is_number_integer() || found->get<int64_t>() < low || found->get<int64_t>() > high)
    throw Error(Code::invalidConfig,
                fmt::format("{}: expected a whole number from {} to {}, found {}", key, low, high,
                            found->dump()));
  return found->get<unsigned>();
}

}  // namespace vdpa::cni
