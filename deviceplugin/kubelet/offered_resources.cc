#include "deviceplugin/kubelet/offered_resources.h"

#include <fmt/format.h>

#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "common/atomic_file.h"
#include "common/log.h"

namespace vdpa::plugin {

OfferedResources::OfferedResources(std::string path) : path_(std::move(path)) {
  try {
    std::istringstream lines(readFile(path_));
    for (std::string name; std::getline(lines, name);)
      if (!name.empty()) names_.insert(name);
  } catch (const std::system_error& error) {
    log::debug("{}", error.what());  // absent at the first start since the node booted
  }
}

void OfferedResources::replace(std::set<std::string> names) {
  if (names == names_) return;
  names_ = std::move(names);
  try {
    writeFileAtomically(path_, fmt::format("{}\n", fmt::join(names_, "\n")), Durability::memory);
  } catch (const std::system_error& error) {
    log::warn("{}; the device information of a withdrawn resource may stay behind", error.what());
  }
}

}  // namespace vdpa::plugin
