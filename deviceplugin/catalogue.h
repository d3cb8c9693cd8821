// The node's current offers, from the configuration and the devices that exist. Loop thread only.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/netlink/vdpa_netlink.h"
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
    std::string config;    // a file
    std::string nodeName;  // for resources of some nodes
    std::string sysfs;
    std::function<void(const Config&)> check;  // throws ConfigError if impossible on this node
  };

  // Reads the configuration. Throws ConfigError. Calls `changed` when offers() have changed.
  Catalogue(EventLoop& loop, Metrics& metrics, Sources sources, std::function<void()> changed);

  // Reads the node's devices and the configuration, and follows both from now on. Throws as the
  // constructor does.
  void start(Inotify& inotify);

  const Config& config() const { return config_; }
  const Offers& offers() const { return offers_; }
  // Why offers() may lack devices that are to be provisioned; empty: it lacks none.
  std::string missing() const;

 private:
  void reload();
  void rescan();
  Snapshot look();
  void warnIfEmpty() const;
  void makeOffers();

  EventLoop& loop_;
  Metrics& metrics_;
  const Sources sources_;
  const std::function<void()> changed_;
  std::string text_;  // of the configuration
  Config config_;
  VdpaNetlink netlink_;
  Snapshot snapshot_;
  Offers offers_;              // from config_ and snapshot_
  bool vdpaListed_ = false;    // the kernel's vDPA devices have been read at least once
  bool networkKnown_ = false;  // the host's use of its netdevs has been read at least once
  EventLoop::Timer reload_;
  EventLoop::Timer lookAgain_;
  std::optional<Monitor> monitor_;
};

}  // namespace vdpa::plugin
