#include "deviceplugin/kubelet/device_info_upkeep.h"

#include <chrono>
#include <cstddef>
#include <exception>
#include <set>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/log.h"

namespace vdpa::plugin {
namespace {

// PodResources is empty for a while after a kubelet restart; remove nothing until then.
constexpr auto kTidyAfter = std::chrono::seconds(60);
// Registration comes first.
constexpr auto kWriteAfter = std::chrono::milliseconds(100);
// A thousand files would block the loop for a third of a second.
constexpr size_t kWrittenAtOnce = 32;
// After a failed write.
constexpr auto kWriteAgain = std::chrono::seconds(10);

}  // namespace

void DeviceInfoUpkeep::renew() {
  written_ = 0;
  writing_.start(kWriteAfter);
  tidying_.start(kTidyAfter);
}

// Writes kWrittenAtOnce files, then reschedules itself.
void DeviceInfoUpkeep::write() {
  const size_t done = written_;
  size_t seen = 0;
  try {
    for (const auto& [config, devices] : found_())
      for (const auto& device : devices) {
        if (seen++ < done) continue;
        files_.write(config.fullName(), device);
        written_ = seen;
        if (seen == done + kWrittenAtOnce) return writing_.start(std::chrono::milliseconds(0));
      }
  } catch (const std::exception& error) {
    log::error("{} (retrying); until then network-status lacks device information",
               withRemedy(error));
    written_ = 0;
    writing_.start(kWriteAgain);
  }
}

void DeviceInfoUpkeep::tidy() {
  const auto held = held_();
  if (!held || EventLoop::Clock::now() - started_ < kTidyAfter) return;
  std::set<std::string> needed;
  for (const auto& resource : offered_.names()) {
    std::set<std::string> kept;
    for (const auto& [config, devices] : plugins_.offers())
      if (config.fullName() == resource)
        for (const auto& device : devices) kept.insert(device.id);
    for (const auto& [name, id] : *held)
      if (name == resource) kept.insert(id);
    files_.removeOthers(resource, kept);
    if (!kept.empty() || plugins_.contains(resource)) needed.insert(resource);
  }
  offered_.replace(std::move(needed));
}

}  // namespace vdpa::plugin
