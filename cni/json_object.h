// JSON from outside: parsed with a depth limit and read key by key, so that an error about a wrong
// type names the key's full path and never prints a megabyte.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cni/error.h"
#include "common/json.h"

namespace vdpa::cni {

// Throws Error (decodingFailure), whose message begins with `what`, if the text is not JSON, nested
// deeper than 64 levels, or not an object.
nlohmann::json parseObject(const std::string& text, const std::string& what);

// At most `limit` bytes of a text from outside.
std::string excerpt(const std::string& text, size_t limit = 200);

// The keys of one object; `json` must outlive this. A key that is null counts as absent.
class JsonObject {
 public:
  // Errors have `code`, and `prefix` ("runtimeConfig.") before every key that they name.
  explicit JsonObject(const nlohmann::json& json, std::string prefix = "",
                      Code code = Code::invalidConfig);
  // Reads no other keys than these, which must outlive it: std::logic_error.
  JsonObject(const nlohmann::json& json, std::span<const std::string_view> keys)
      : JsonObject(json) {
    keys_ = keys;
  }

  bool has(const char* key) const { return find(key) != nullptr; }
  std::string string(const char* key, const std::string& otherwise = "") const;
  // A whole number from `low` to `high`.
  std::optional<unsigned> number(const char* key, unsigned low, unsigned high) const;
  // Empty if the key is absent.
  JsonObject object(const char* key) const;
  const nlohmann::json& list(const char* key) const;
  // Every element must be an object.
  std::vector<JsonObject> objects(const char* key) const;

  std::string path(const char* key) const { return prefix_ + key; }
  const nlohmann::json& json() const { return *json_; }

 private:
  const nlohmann::json* find(const char* key) const;
  [[noreturn]] void wrongType(const std::string& path, const std::string& expected,
                              const nlohmann::json& found) const;

  const nlohmann::json* json_;
  std::string prefix_;
  Code code_;
  std::span<const std::string_view> keys_ = {};  // empty: any
};

}  // namespace vdpa::cni
