#include "common/port_settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/mac_address.h"

namespace vdpa {
namespace {

constexpr size_t kMaxQuoted = 40;  // bytes; the text is from outside

std::string quoted(const std::string& text) {
  return text.size() <= kMaxQuoted ? text : text.substr(0, kMaxQuoted) + "…";
}

bool sameWord(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

PortSettings defaultSettings() {
  PortSettings port;
  forEachSetting([](const Setting&, auto& value) { value.emplace(); }, port);
  port.mac.reset();
  port.mtu = 1500;
  return port;
}

void overlay(PortSettings& port, const PortSettings& over) {
  forEachSetting(
      [](const Setting&, auto& value, const auto& other) {
        if (other) value = other;
      },
      port, over);
}

void readText(std::string_view key, const std::string& text, MacAddress& mac) {
  const auto found = MacAddress::parse(text);
  if (!found || !found->isUnicast())
    throw std::invalid_argument(fmt::format(
        "{} '{}'{} expected a unicast address such as 02:00:00:00:00:01", key, quoted(text),
        found && found->isMulticast() ? " is a multicast address;" : ":"));
  mac = *found;
}

size_t indexOfWord(std::string_view key, const std::string& text,
                   std::span<const char* const> words) {
  const auto found =
      std::ranges::find_if(words, [&](const char* word) { return sameWord(word, text); });
  if (found == words.end())
    throw std::invalid_argument(
        fmt::format("{} '{}': expected {}", key, quoted(text), fmt::join(words, " or ")));
  return static_cast<size_t>(found - words.begin());
}

}  // namespace vdpa
