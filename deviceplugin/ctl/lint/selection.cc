#include "deviceplugin/ctl/lint/selection.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/json.h"

namespace vdpa::ctl {
namespace {

using nlohmann::json;

constexpr const char* kBlanks = " \t\r\n";

[[noreturn]] void refuse(const std::string& problem, const std::string& expected) {
  throw std::invalid_argument(fmt::format("{}; expected {}", problem, expected));
}

std::string shown(const std::string& text) {
  return text.size() <= 80 ? text : text.substr(0, 80) + "…";
}

std::string trimmed(const std::string& text) {
  const size_t start = text.find_first_not_of(kBlanks);
  if (start == std::string::npos) return "";
  return text.substr(start, text.find_last_not_of(kBlanks) - start + 1);
}

bool isLabel(const std::string& text) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && alnum(text.front()) && alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return alnum(c) || c == '-'; });
}

// "NAMESPACE/NAME@INTERFACE"
Selection parseShort(const std::string& item) {
  const char* form = "[NAMESPACE/]NAME[@INTERFACE], with commas between networks";
  Selection selection;
  const size_t slash = item.find('/');
  std::string rest = item;
  if (slash != std::string::npos) {
    selection.space = trimmed(item.substr(0, slash));
    rest = item.substr(slash + 1);
    if (!isLabel(selection.space)) refuse(fmt::format("'{}' has no namespace", shown(item)), form);
  }
  const size_t sign = rest.find('@');
  selection.name = trimmed(rest.substr(0, sign));
  if (sign != std::string::npos) selection.interface = trimmed(rest.substr(sign + 1));
  if (!isLabel(selection.name) ||
      (sign != std::string::npos && selection.interface.find_first_of("@/") != std::string::npos))
    refuse(fmt::format("'{}' names no network", shown(item)), form);
  return selection;
}

std::string member(const json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || found->is_null()) return "";
  if (!found->is_string()) refuse(fmt::format("'{}' of an entry is not a string", key), "a string");
  return found->get<std::string>();
}

Selection parseEntry(const json& entry) {
  if (!entry.is_object())
    refuse(fmt::format("an entry is {}", shown(anyJsonText(entry))), "an object with a name");
  Selection selection{member(entry, "namespace"), member(entry, "name"), member(entry, "interface"),
                      member(entry, "mac"), 0};
  if (selection.name.empty()) refuse("an entry has no name", "the name of a network");
  if (const auto ips = entry.find("ips"); ips != entry.end() && !ips->is_null()) {
    if (!ips->is_array()) refuse("'ips' of an entry is not a list", "a list of addresses");
    selection.ips = ips->size();
  }
  return selection;
}

void checkInterfaces(const std::vector<Selection>& selections) {
  std::set<std::string> seen;
  for (const auto& selection : selections) {
    const std::string& name = selection.interface;
    if (name.empty()) continue;
    if (name.size() > 15 || name.find_first_of(" \t\n\r/:") != std::string::npos)
      refuse(fmt::format("'{}' is no interface name", shown(name)),
             "1 to 15 bytes without '/', ':' or white space");
    if (!seen.insert(name).second)
      refuse(fmt::format("two networks have the interface {}", name), "a name of its own for each");
  }
}

}  // namespace

std::vector<Selection> parseSelections(const std::string& annotation) {
  std::vector<Selection> selections;
  if (annotation.find_first_of("[{\"") != std::string::npos) {  // as Multus tells the forms apart
    const json list = tryParseJson(annotation);
    if (!list.is_array()) refuse("it is not a JSON list", "a list of objects with a name");
    for (const auto& entry : list) selections.push_back(parseEntry(entry));
  } else {
    for (size_t start = 0; start <= annotation.size();) {
      const size_t comma = std::min(annotation.find(',', start), annotation.size());
      selections.push_back(parseShort(trimmed(annotation.substr(start, comma - start))));
      start = comma + 1;
    }
  }
  checkInterfaces(selections);
  return selections;
}

}  // namespace vdpa::ctl
