// A finding of `vdpactl lint`.
#pragma once

#include <compare>
#include <string>

namespace vdpa::ctl {

struct Problem {
  std::string file;
  unsigned line = 1;
  std::string message;  // with the remedy
  auto operator<=>(const Problem&) const = default;
};

}  // namespace vdpa::ctl
