#include "common/naming.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace vdpa {
namespace {

bool isLowerAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool isDnsLabel(std::string_view label) {
  if (label.empty() || label.size() > 63) return false;
  for (const char c : label)
    if (!isLowerAlnum(c) && c != '-') return false;
  return isLowerAlnum(label.front()) && isLowerAlnum(label.back());
}

}  // namespace

bool isResourceName(std::string_view name) {
  if (name.empty() || name.size() > 63) return false;
  for (const char c : name)
    if (!isLowerAlnum(c) && c != '-' && c != '_' && c != '.') return false;
  return isLowerAlnum(name.front()) && isLowerAlnum(name.back());
}

bool isResourcePrefix(std::string_view prefix) {
  if (prefix.size() > 253 || prefix.find('.') == std::string_view::npos) return false;
  for (size_t start = 0; start <= prefix.size();) {
    const size_t dot = std::min(prefix.find('.', start), prefix.size());
    if (!isDnsLabel(prefix.substr(start, dot - start))) return false;
    start = dot + 1;
  }
  return true;
}

bool isPciAddress(const std::string& text) {
  const auto hex = [](std::string_view digits) {
    return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  };
  const size_t domain = text.find(':');
  if (domain == std::string::npos || domain < 4 || domain > 8 || text.size() != domain + 8)
    return false;
  const std::string_view view = text;
  return hex(view.substr(0, domain)) && hex(view.substr(domain + 1, 2)) &&
         view[domain + 3] == ':' && hex(view.substr(domain + 4, 2)) && view[domain + 6] == '.' &&
         view[domain + 7] >= '0' && view[domain + 7] <= '7';
}

std::string variableName(std::string_view resource) {
  std::string name(resource);
  for (char& c : name) {
    if (c >= 'a' && c <= 'z') {
      c = static_cast<char>(c - 'a' + 'A');
    } else if (!(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z')) {
      c = '_';
    }
  }
  return name;
}

std::string fileName(std::string_view resource) {
  std::string name(resource);
  for (char& c : name)
    if (c == '/') c = '-';
  return name;
}

std::string softwareDeviceId(std::string_view name, unsigned index) {
  return fmt::format("{}-{}", name, index);
}

std::string podDirectory(std::string_view deviceId) {
  return fmt::format("/run/vdpa/{}", deviceId);
}

std::string podSocket(std::string_view deviceId) {
  return podDirectory(deviceId) + "/vhost.sock";
}

}  // namespace vdpa
