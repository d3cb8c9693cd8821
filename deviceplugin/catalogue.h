// What this node offers, as the configuration and the devices on it are now. All of it is for the
// loop's thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/vdpa_netlink.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/monitor.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

class Catalogue {
 public:
  struct Sources {
    std::string config;  // a file
    std::string sysfs;
    std::function<void(const Config&)> check;  // throws ConfigError for what this node can't have
  };

  // Reads the configuration. Throws ConfigError. `changed` is called when offers() are others.
  Catalogue(EventLoop& loop, Metrics& metrics, Sources sources, std::function<void()> changed);

  // Looks at the node and the configuration, and follows both from now on. Throws as the
  // constructor does.
  void start(Inotify& inotify);

  const Config& config() const { return config_; }
  const Offers& offers() const { return offers_; }
  // Why a device that is to be provisioned may be missing from offers(); empty: none is.
  std::string missing() const;

 private:
  void reload();
  void rescan();
  Snapshot look();
  void makeOffers();

  EventLoop& loop_;
  Metrics& metrics_;
  const Sources sources_;
  const std::function<void()> changed_;
  std::string text_;  // of the configuration
  Config config_;
  VdpaNetlink netlink_;
  Snapshot snapshot_;
  Offers offers_;              // what config_ makes of snapshot_
  bool vdpaListed_ = false;    // the kernel's vDPA devices, once at least
  bool networkKnown_ = false;  // what the host needs its netdevs for, likewise
  EventLoop::Timer reload_;
  EventLoop::Timer lookAgain_;
  std::optional<Monitor> monitor_;
};

}  // namespace vdpa::plugin
