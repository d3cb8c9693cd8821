#include "deviceplugin/node_features.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/version.h"
#include "deviceplugin/kubelet/resource_plugins.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

constexpr size_t kMaxLabelName = 63;  // bytes behind the prefix

}  // namespace

std::string featureLines(const std::vector<ResourceOffer>& offers,
                         const std::vector<ResourcePlugins::Summary>& summaries, bool drained) {
  std::set<std::string> backends;  // sorted
  for (const auto& offer : offers)
    for (const auto& device : offer.devices) backends.insert(nameOf(device.backend));
  const bool capable = backends.contains(nameOf(BackendKind::kernel)) ||
                       backends.contains(nameOf(BackendKind::dpdk));
  size_t unhealthy = 0;
  std::string lines = fmt::format("# Written by vdpa-device-plugin {}.\n", programVersion());
  lines += fmt::format("vdpa.io/version={}\n", programVersion());
  lines += fmt::format("vdpa.io/capable={}\n", capable);
  // A label's value has no commas.
  lines += fmt::format("vdpa.io/backends={}\n",
                       backends.empty() ? "none" : fmt::format("{}", fmt::join(backends, ".")));
  for (const auto& summary : summaries) {
    unhealthy += summary.devices - summary.healthy;
    const std::string label = summary.resource + ".devices";
    if (label.size() - label.find('/') - 1 <= kMaxLabelName)
      lines += fmt::format("{}={}\n", label, summary.devices);
  }
  lines += fmt::format("vdpa.io/unhealthy={}\n", unhealthy);
  lines += fmt::format("vdpa.io/drained={}\n", drained);
  return lines;
}

FeatureFile::~FeatureFile() {
  if (wanted()) ::unlink(path().c_str());
}

bool FeatureFile::write(const std::string& text) {
  if (!wanted() || text == written_) return true;
  // Node Feature Discovery reads every file here whose name does not begin with a dot, so the
  // unfinished one must have a name that does.
  const std::string hidden = directory_ + "/.vdpa";
  try {
    writeFileAtomically(hidden, text, Durability::memory);
    checked(std::rename(hidden.c_str(), path().c_str()), "cannot rename {} to {}", hidden, path());
    written_ = text;
    lastError_.clear();
    return true;
  } catch (const std::system_error& error) {
    if (error.what() != lastError_)
      log::warn("the node labels are not up to date: {}", error.what());
    lastError_ = error.what();
    return false;
  }
}

}  // namespace vdpa::plugin
