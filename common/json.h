// nlohmann-json, whose reading and writing of text are compiled in json.cc only, as they are large
// templates. Headers that only name the type include nlohmann/json_fwd.hpp.
#pragma once

// Unused, and they include large headers.
#define JSON_HAS_FILESYSTEM 0
#define JSON_HAS_RANGES 0
#include <nlohmann/json.hpp>

#include <string>

namespace vdpa {

// json::parse(). Throws nlohmann::json::parse_error.
nlohmann::json parseJson(const std::string& text);
// The result is discarded() if the text is not JSON.
nlohmann::json tryParseJson(const std::string& text);

// json::dump(). Throws nlohmann::json::type_error for a string that is not UTF-8.
std::string jsonText(const nlohmann::json& json, int indent = -1);
// Replaces invalid UTF-8 with U+FFFD.
std::string anyJsonText(const nlohmann::json& json, int indent = -1);
// `text` with U+FFFD in place of what is no UTF-8.
std::string validText(const std::string& text);

}  // namespace vdpa
