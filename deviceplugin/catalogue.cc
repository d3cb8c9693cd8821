#include "deviceplugin/catalogue.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "common/atomic_file.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/discovery/take_snapshot.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

// A ConfigMap update causes several events.
constexpr auto kReloadDelay = std::chrono::milliseconds(50);
// After a scan that could not tell which netdevs the host needs.
constexpr auto kRescanInterval = std::chrono::milliseconds(250);

}  // namespace

Catalogue::Catalogue(EventLoop& loop, Metrics& metrics, Sources sources,
                     std::function<void()> changed)
    : loop_(loop),
      metrics_(metrics),
      sources_(std::move(sources)),
      changed_(std::move(changed)),
      reload_(loop, [this] { reload(); }),
      lookAgain_(loop, [this] { rescan(); }) {
  sources_.check(loadConfig(sources_.config, sources_.nodeName));
}

void Catalogue::start(Inotify& inotify) {
  // A ConfigMap changes by renaming a link beside the file, so react to any change in its
  // directory; reload() finds out whether the file has changed.
  inotify.watch(directoryOf(sources_.config),
                [this](Inotify::Change, const std::string&) { reload_.startWithin(kReloadDelay); });
  text_ = readFile(sources_.config);
  config_ = parseConfig(text_, sources_.config, sources_.nodeName);
  metrics_.configLoaded(true);
  warnIfEmpty();
  // Before the first snapshot, so that later events lead to another one.
  monitor_.emplace(loop_, [this] { rescan(); });
  snapshot_ = look();
  makeOffers();
}

void Catalogue::reload() {
  try {
    const std::string text = readFile(sources_.config);
    if (text == text_) {
      if (!metrics_.lastLoad().good) metrics_.configLoaded(true);  // a bad change was taken back
      return;
    }
    const Config config = parseConfig(text, sources_.config, sources_.nodeName);
    sources_.check(config);
    text_ = text;
    config_ = config;
    log::info("{} has changed", sources_.config);
    warnIfEmpty();
    metrics_.configLoaded(true);
  } catch (const std::exception& error) {
    metrics_.configLoaded(false);
    log::error("{}; the configuration stays as it was", error.what());
    return;
  }
  makeOffers();
  changed_();
}

// Schedules another scan soon if the host's use of its netdevs could not be read.
Snapshot Catalogue::look() {
  Snapshot now = takeSnapshot(sources_.sysfs, netlink_);
  const auto unknown = now.skipped.find(kNetworkUse);
  if (unknown == now.skipped.end() || lookAgain_.pending()) return now;
  log::warn("cannot offer new devices with a netdev (retrying): {}", unknown->second);
  lookAgain_.start(kRescanInterval);
  return now;
}

void Catalogue::rescan() {
  Snapshot now = look();
  // The previous snapshot is better than one in which the host may need everything.
  if (now.skipped.contains(kNetworkUse) && !snapshot_.skipped.contains(kNetworkUse)) return;
  if (now == snapshot_) return;
  snapshot_ = std::move(now);
  makeOffers();
  changed_();
}

void Catalogue::warnIfEmpty() const {
  if (config_.resources.empty())
    log::warn("no resource of {} is for this node, {}: it offers nothing", sources_.config,
              sources_.nodeName);
}

void Catalogue::makeOffers() {
  offers_ = plugin::makeOffers(config_, snapshot_);
  vdpaListed_ = vdpaListed_ || !snapshot_.skipped.contains("vdpa");
  networkKnown_ = networkKnown_ || !snapshot_.skipped.contains(kNetworkUse);
}

std::string Catalogue::missing() const {
  const bool provisions =
      std::any_of(config_.resources.begin(), config_.resources.end(),
                  [](const ResourceConfig& resource) { return resource.provision; });
  if (!provisions || (vdpaListed_ && networkKnown_)) return "";
  return snapshot_.skipped.at(vdpaListed_ ? kNetworkUse : "vdpa");
}

}  // namespace vdpa::plugin
