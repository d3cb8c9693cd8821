// nlohmann-json, of which reading and writing text are compiled in json.cc alone: they are large,
// and templates. Headers that only name the type include nlohmann/json_fwd.hpp.
#pragma once

// Not used, and they include much.
#define JSON_HAS_FILESYSTEM 0
#define JSON_HAS_RANGES 0
#include <nlohmann/json.hpp>

#include <string>

namespace vdpa {

// json::parse(). Throws nlohmann::json::parse_error.
nlohmann::json parseJson(const std::string& text);
// Discarded if it is none.
nlohmann::json tryParseJson(const std::string& text);

// json::dump(). Throws nlohmann::json::type_error for a string that is not UTF-8.
std::string jsonText(const nlohmann::json& json, int indent = -1);
// With U+FFFD in the place of what is not UTF-8.
std::string anyJsonText(const nlohmann::json& json, int indent = -1);

}  // namespace vdpa
