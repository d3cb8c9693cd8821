// Checks manifests offline, as `vdpactl lint` does.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {

struct LintResult {
  std::vector<Problem> problems;  // by file, as given, and line
  size_t networks = 0, pods = 0;  // objects that were checked
};

// `files` are names with their texts. Networks of any of them are known to the pods of all.
LintResult lintTexts(const std::vector<std::pair<std::string, std::string>>& files);

}  // namespace vdpa::ctl
