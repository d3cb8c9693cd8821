// The wiring of vdpa-device-plugin: configuration to offers, offers to the datapath and the
// kubelet.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/vdpa_netlink.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/datapath_link.h"
#include "deviceplugin/discovery/monitor.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/events/loop.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/kubelet/resource_plugin.h"
#include "deviceplugin/resources/offer.h"

namespace grpc {
class Server;
}

namespace vdpa::plugin {

namespace v1 {
class ListResponse;
}

class ExplainService;

struct PluginOptions {
  std::string config = "/etc/vdpa/config.yaml";
  std::string kubeletDirectory = "/var/lib/kubelet/device-plugins";
  std::string podResources = "/var/lib/kubelet/pod-resources/kubelet.sock";
  std::string runDirectory = "/run/vdpa";
  std::string deviceInfoDirectory = "/var/run/k8s.cni.cncf.io/devinfo/dp";
  std::string datapathSocket;  // empty: in the run directory
  std::string sysfs = "/sys";
  std::string metricsAddress;
};

class Instance {
 public:
  // Waits for another instance on this node to end, then starts everything. Throws ConfigError,
  // std::runtime_error.
  explicit Instance(PluginOptions options);
  ~Instance();

  void run() { loop_.run(); }  // until SIGTERM or SIGINT

 private:
  void apply();   // the configuration and the snapshot, as they are now
  void rescan();  // a new snapshot
  Snapshot look();
  void tellDatapath();
  void updatePlugins();
  void reload();
  void announce();  // health service and metrics follow the resources' state
  plugin::v1::ListResponse explain() const;
  void startServer();
  void removeLeftovers() const;
  void watchFiles();
  void writeDeviceInfo(size_t done = 0);
  void tidyDeviceInfo();
  void checkPaths(const Config& config) const;

  PluginOptions options_;
  UniqueFd lock_;
  UniqueFd signals_;
  Loop loop_;
  Inotify inotify_;
  Metrics metrics_;
  DeviceInfoFiles files_;
  std::string configText_;
  Config config_;
  VdpaNetlink netlink_;
  Snapshot snapshot_;
  Offers found_;               // what config_ makes of snapshot_
  bool vdpaListed_ = false;    // the kernel's vDPA devices, once at least
  bool networkKnown_ = false;  // what the host needs its netdevs for, likewise
  bool told_ = false;          // the datapath knows found_
  bool incomplete_ = false;    // a resource of offers_ has no plugin
  bool reloadPending_ = false;
  bool lookPending_ = false;
  bool offerPending_ = false;
  bool writePending_ = false;
  std::vector<ResourceOffer> offers_;  // the same, and what pods hold still
  std::unique_ptr<OfferedResources> offered_;
  const Loop::Clock::time_point started_ = Loop::Clock::now();
  std::map<std::string, std::unique_ptr<ResourcePlugin>> plugins_;  // by full name
  // The datapath's report on every device that it has, those that are not offered just now among
  // them: it says nothing of one that comes back before it heard that it was gone.
  DatapathLink::Changes health_;
  std::unique_ptr<DatapathLink> datapath_;
  std::unique_ptr<PodWatch> pods_;
  std::unique_ptr<Monitor> monitor_;
  const std::unique_ptr<ExplainService> explain_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vdpa::plugin
