#include "common/json.h"

#include <string>

namespace vdpa {

nlohmann::json parseJson(const std::string& text) {
  return nlohmann::json::parse(text);
}

nlohmann::json tryParseJson(const std::string& text) {
  return nlohmann::json::parse(text, nullptr, false);
}

std::string jsonText(const nlohmann::json& json, int indent) {
  return json.dump(indent);
}

std::string anyJsonText(const nlohmann::json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string validText(const std::string& text) {
  return parseJson(anyJsonText(text)).get<std::string>();
}

}  // namespace vdpa
