// The wiring of vdpa-device-plugin: from the configuration and devices to offers, and from offers
// to the datapath and the kubelet.
#pragma once

#include <memory>
#include <string>

#include "common/event_loop.h"
#include "common/instance_lock.h"
#include "common/observe_server.h"
#include "common/unique_fd.h"
#include "deviceplugin/catalogue.h"
#include "deviceplugin/datapath_link.h"
#include "deviceplugin/events/inotify.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_info_upkeep.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/kubelet/resource_plugins.h"
#include "deviceplugin/node_features.h"

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
  std::string nodeName;  // empty: unknown
  std::string kubeletDirectory = "/var/lib/kubelet/device-plugins";
  std::string podResources = "/var/lib/kubelet/pod-resources/kubelet.sock";
  std::string runDirectory = "/run/vdpa";
  std::string deviceInfoDirectory = "/var/run/k8s.cni.cncf.io/devinfo/dp";
  std::string datapathSocket;  // empty: in the run directory
  std::string sysfs = "/sys";
  std::string metricsAddress;
  std::string featuresDirectory;  // empty: no feature file
};

class Instance {
 public:
  // Waits for another instance on this node to end, then starts everything. Throws ConfigError,
  // std::runtime_error.
  explicit Instance(PluginOptions options);
  ~Instance();

  void run() { loop_.run(); }  // until SIGTERM or SIGINT

 private:
  void apply();  // applies the current offers and held devices
  void tellDatapath();
  void announce();  // updates health service and metrics from the resources' state
  v1::ListResponse explain() const;
  void startServer();
  void show(observe::v1::Observation& observation);  // to vdpa-exporter; from any thread
  void followDatapath();
  void followPods();
  void writeFeatures();

  const PluginOptions options_;
  EventLoop loop_;
  Inotify inotify_;
  Catalogue catalogue_;
  InstanceLock lock_;
  UniqueFd signals_;
  EventLoop::Watch signalsWatch_;
  Metrics metrics_;  // after signals_: its threads, like all others, must have them blocked
  OfferedResources offered_;
  DeviceInfoFiles files_;
  ResourcePlugins plugins_;
  DeviceInfoUpkeep deviceInfo_;
  bool told_ = false;  // the datapath has been sent the offers
  std::unique_ptr<DatapathLink> datapath_;
  std::unique_ptr<PodWatch> pods_;
  FeatureFile features_;
  EventLoop::Timer featuresTimer_;
  const std::unique_ptr<ExplainService> explain_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ObserveServer> observed_;
};

}  // namespace vdpa::plugin
