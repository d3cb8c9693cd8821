// nlohmann-json, of which the large parts are compiled in json.cc alone instead of in every file
// that reads or writes JSON. Headers that only name the type include nlohmann/json_fwd.hpp.
#pragma once

// Not used, and they include much.
#define JSON_HAS_FILESYSTEM 0
#define JSON_HAS_RANGES 0
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace vdpa {

// From which parse() reads a std::string.
using JsonText = decltype(nlohmann::detail::input_adapter(std::declval<const std::string&>()));

}  // namespace vdpa

extern template class nlohmann::detail::serializer<nlohmann::json>;
extern template class nlohmann::detail::lexer<nlohmann::json, vdpa::JsonText>;
extern template class nlohmann::detail::parser<nlohmann::json, vdpa::JsonText>;
