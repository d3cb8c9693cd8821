#include "deviceplugin/ctl/lint/lint.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/ctl/lint/manifest.h"
#include "deviceplugin/ctl/lint/network.h"
#include "deviceplugin/ctl/lint/pod.h"

namespace vdpa::ctl {

LintResult lintTexts(const std::vector<std::pair<std::string, std::string>>& files) {
  LintResult result;
  std::vector<Object> objects;
  for (const auto& [file, text] : files) readObjects(file, text, objects, result.problems);

  std::vector<Network> networks;
  for (const auto& object : objects)
    if (isNetwork(object)) networks.push_back(checkNetwork(object, result.problems));
  result.networks = networks.size();
  for (const auto& object : objects) {
    if (!hasPods(object)) continue;
    ++result.pods;
    checkPods(object, networks, result.problems);
  }
  std::stable_sort(result.problems.begin(), result.problems.end());
  return result;
}

}  // namespace vdpa::ctl
