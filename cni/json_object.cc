#include "cni/json_object.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "common/json.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

const json& noObject() {
  static const json none = json::object();
  return none;
}

const json& noList() {
  static const json none = json::array();
  return none;
}

std::string describe(const json& value) {
  switch (value.type()) {
    case json::value_t::string:
      return fmt::format("'{}'", excerpt(value.get_ref<const std::string&>(), 40));
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return "a list";
    default:
      return jsonText(value);  // a number, true, false
  }
}

}  // namespace

std::string excerpt(const std::string& text, size_t limit) {
  return text.size() <= limit ? text : text.substr(0, limit) + "…";
}

json parseObject(const std::string& text, const std::string& what) {
  json value;
  try {
    value = json::parse(text, [&](int depth, json::parse_event_t event, json&) {
      const bool opens =
          event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
      if (opens && depth >= kMaxDepth)
        throw Error(Code::decodingFailure,
                    fmt::format("{} is nested deeper than {} levels", what, kMaxDepth));
      return true;
    });
  } catch (const json::exception& error) {
    throw Error(Code::decodingFailure,
                fmt::format("{} is {}", what, text.empty() ? "empty" : "not JSON"),
                excerpt(error.what()));
  }
  if (!value.is_object())
    throw Error(Code::decodingFailure, fmt::format("{} is not a JSON object", what));
  return value;
}

JsonObject::JsonObject(const nlohmann::json& json, std::string prefix, Code code)
    : json_(&json), prefix_(std::move(prefix)), code_(code) {}

const nlohmann::json* JsonObject::find(const char* key) const {
  if (!keys_.empty() && std::find(keys_.begin(), keys_.end(), key) == keys_.end())
    throw std::logic_error(fmt::format("networkKeys() lacks '{}'", key));
  const auto found = json_->find(key);
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

void JsonObject::wrongType(const std::string& path, const std::string& expected,
                           const nlohmann::json& found) const {
  throw Error(code_, fmt::format("{}: expected {}, found {}", path, expected, describe(found)));
}

std::string JsonObject::string(const char* key, const std::string& otherwise) const {
  const auto* found = find(key);
  if (!found) return otherwise;
  if (!found->is_string()) wrongType(path(key), "a string", *found);
  // The kernel ends a path at the zero byte, so it would open a file other than the one checked.
  if (found->get_ref<const std::string&>().find('\0') != std::string::npos)
    throw Error(code_, fmt::format("{}: expected a string without zero bytes", path(key)));
  return found->get<std::string>();
}

std::optional<unsigned> JsonObject::number(const char* key, unsigned low, unsigned high) const {
  const auto* found = find(key);
  if (!found) return std::nullopt;
  if (!found->is_number_integer() || found->get<int64_t>() < low || found->get<int64_t>() > high)
    wrongType(path(key), fmt::format("a whole number from {} to {}", low, high), *found);
  return found->get<unsigned>();
}

JsonObject JsonObject::object(const char* key) const {
  const auto* found = find(key);
  if (found && !found->is_object()) wrongType(path(key), "an object", *found);
  return JsonObject(found ? *found : noObject(), path(key) + ".", code_);
}

const nlohmann::json& JsonObject::list(const char* key) const {
  const auto* found = find(key);
  if (found && !found->is_array()) wrongType(path(key), "a list", *found);
  return found ? *found : noList();
}

std::vector<JsonObject> JsonObject::objects(const char* key) const {
  std::vector<JsonObject> elements;
  for (const auto& element : list(key)) {
    const std::string name = fmt::format("{}[{}]", path(key), elements.size());
    if (!element.is_object()) wrongType(name, "an object", element);
    elements.emplace_back(element, name + ".", code_);
  }
  return elements;
}

}  // namespace vdpa::cni
