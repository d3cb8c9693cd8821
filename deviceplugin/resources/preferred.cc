// See the header.
#include "deviceplugin/resources/preferred.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace vdpa {
namespace {

bool isDigit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

// The run of digits at the start, without leading zeros; removed from `text` whole.
std::string_view takeNumber(std::string_view& text) {
  const size_t end = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view number = text.substr(0, end);
  text.remove_prefix(end);
  number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
  return number;
}

}  // namespace

bool naturalLess(std::string_view a, std::string_view b) {
  const std::string_view wholeA = a, wholeB = b;
  while (!a.empty() && !b.empty()) {
    if (isDigit(a.front()) && isDigit(b.front())) {
      const std::string_view x = takeNumber(a), y = takeNumber(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a.front() != b.front()) return a.front() < b.front();
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  if (a.empty() != b.empty()) return a.empty();
  return wholeA < wholeB;
}

std::vector<std::string> preferDevices(std::vector<std::string> available,
                                       const std::vector<std::string>& mustInclude, int count) {
  if (count < 0 || mustInclude.size() > static_cast<size_t>(count))
    throw std::invalid_argument(
        fmt::format("{} devices must be included in {}", mustInclude.size(), count));
  std::sort(available.begin(), available.end(), naturalLess);
  available.erase(std::unique(available.begin(), available.end()), available.end());

  std::vector<std::string> chosen;
  for (const auto& id : mustInclude) {
    if (std::find(available.begin(), available.end(), id) == available.end())
      throw std::invalid_argument(
          fmt::format("device {} must be included but is not available", id));
    if (std::find(chosen.begin(), chosen.end(), id) == chosen.end()) chosen.push_back(id);
  }
  for (const auto& id : available) {
    if (chosen.size() == static_cast<size_t>(count)) break;
    if (std::find(chosen.begin(), chosen.end(), id) == chosen.end()) chosen.push_back(id);
  }
  if (chosen.size() < static_cast<size_t>(count))
    throw std::invalid_argument(
        fmt::format("{} devices are asked for but only {} are available", count, chosen.size()));
  return chosen;
}

}  // namespace vdpa
