#include "deviceplugin/kubelet/device_info_upkeep.h"

#include <chrono>
#include <cstddef>
#include <exception>
#include <set>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "deviceplugin/events/loop.h"

namespace vdpa::plugin {
namespace {

// PodResources is empty for a while after a kubelet restart; nothing is removed on its word before
// that has passed.
constexpr auto kTidyAfter = std::chrono::seconds(60);
// Registration comes first.
constexpr auto kWriteAfter = std::chrono::milliseconds(100);
// A thousand files take a third of a second, in which no event would be followed.
constexpr size_t kWrittenAtOnce = 32;
// Those that could not be written.
constexpr auto kWriteAgain = std::chrono::seconds(10);

}  // namespace

void DeviceInfoUpkeep::renew() {
  loop_.runAfter(kWriteAfter, [this] { write(); });
  loop_.runAfter(kTidyAfter, [this] { tidy(); });
}

// Those after the first `done`. Other offers meanwhile bring a writing of their own.
void DeviceInfoUpkeep::write(size_t done) {
  size_t seen = 0;
  try {
    for (const auto& [config, devices] : found_())
      for (const auto& device : devices) {
        if (seen++ < done) continue;
        files_.write(config.fullName(), device);
        if (seen == done + kWrittenAtOnce) return loop_.post([this, seen] { write(seen); });
      }
  } catch (const std::exception& error) {
    log::error("{}; until then network-status lacks device information", withRemedy(error));
    if (std::exchange(writePending_, true)) return;
    loop_.runAfter(kWriteAgain, [this] {
      writePending_ = false;
      write();
    });
  }
}

void DeviceInfoUpkeep::tidy() {
  const auto held = held_();
  if (!held || Loop::Clock::now() - started_ < kTidyAfter) return;
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
