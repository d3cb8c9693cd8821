// One resource as the kubelet sees it: its devices, its server and its registration.
#pragma once

#include <memory>
#include <string>

#include "common/event_loop.h"
#include "deviceplugin/kubelet/allocation.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/registration_schedule.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

class PluginServer;

// Loop thread only, except for the members that gRPC calls.
class ResourcePlugin {
 public:
  struct Paths {
    std::string kubeletDirectory;  // .../device-plugins
    std::string runDirectory;
  };

  // Calls `changed` when registered() may have changed. References outlive this.
  ResourcePlugin(EventLoop& loop, Paths paths, const ResourceOffer& offer, DeviceInfoFiles& files,
                 Metrics& metrics, std::function<void()> changed);
  ~ResourcePlugin();
  ResourcePlugin(const ResourcePlugin&) = delete;
  ResourcePlugin& operator=(const ResourcePlugin&) = delete;

  void kubeletAppeared();
  void kubeletVanished();
  void ownSocketVanished();

  const std::string& endpoint() const { return endpoint_; }  // the current socket's file name
  const std::string& resource() const { return resource_; }
  // Whether this plugin can keep serving the resource with this configuration.
  bool fits(const ResourceConfig& config) const {
    return config.topology == topology_ && config.allocation == order_;
  }
  bool registered() const { return registration_.registered(); }
  DeviceList& devices() { return devices_; }

 private:
  void startServer();
  void restart();
  void schedule();
  void attempt();

  EventLoop& loop_;
  Paths paths_;
  std::string resource_;
  std::string endpoint_;
  const bool topology_;
  const AllocationOrder order_;
  Metrics& metrics_;
  std::function<void()> changed_;
  DeviceList devices_;
  Allocation allocation_;
  RegistrationSchedule registration_;
  unsigned generation_ = 0;  // of the server: events of an earlier one are stale
  bool named_ = false;       // a Register call has named endpoint_
  const EventLoop::Lifetime lifetime_;
  const std::function<void(EventLoop::Task)> post_;  // from any thread; dropped once this is gone
  EventLoop::Timer due_;                             // of the next Register call
  std::function<void()> cancel_;                     // the pending Register call
  std::unique_ptr<PluginServer> server_;
};

}  // namespace vdpa::plugin
