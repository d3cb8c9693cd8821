// Collects for Check every way in which an attachment differs from its record.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/port_settings.h"

namespace vdpa::datapath {

class Differences {
 public:
  template <typename T>
  void compare(std::string_view what, const T& wanted, const T& found) {
    if (wanted != found) add("{} is {}; expected {}", what, found, wanted);
  }
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    texts_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> take() { return std::move(texts_); }

 private:
  std::vector<std::string> texts_;
};

// `found` against the settings in force; "none" is a setting without a value.
inline void comparePorts(Differences& differences, const PortSettings& wanted,
                         const PortSettings& found) {
  forEachSetting(
      [&](const Setting& setting, const auto& wantedValue, const auto& foundValue) {
        differences.compare(setting.key, textOf(wantedValue), textOf(foundValue));
      },
      wanted, found);
}

}  // namespace vdpa::datapath
