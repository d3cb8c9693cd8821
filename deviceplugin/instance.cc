#include "deviceplugin/instance.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/log.h"
#include "common/naming.h"
#include "common/observe_server.h"
#include "common/paths.h"
#include "common/stop_signals.h"
#include "common/unix_socket.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/datapath_link.h"
#include "deviceplugin/explain_service.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/plugin_socket.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/node_features.h"
#include "deviceplugin/observation.h"
#include "deviceplugin/resources/held_devices.h"
#include "deviceplugin/resources/offer.h"
#include "observe.pb.h"

namespace vdpa::plugin {
namespace {

// Several changes make one file; its reader looks once a minute.
constexpr auto kFeaturesDelay = std::chrono::milliseconds(500);
constexpr auto kFeaturesRetry = std::chrono::milliseconds(10000);  // after a failure
constexpr auto kObserveTime = std::chrono::seconds(1);

// Refuses socket paths that are too long, before anything is changed.
void checkPaths(const PluginOptions& options, const Config& config) {
  const Paths datapath(options.runDirectory, "");
  for (const auto& resource : config.resources) {
    const std::string name = fileName(resource.fullName());
    std::vector<std::string> paths{options.kubeletDirectory + "/" +
                                   pluginSocketName(resource.fullName(), 0)};
    if (resource.software)
      paths.push_back(
          datapath.switchPort(name, softwareDeviceId(resource.name, resource.software->ports - 1)));
    for (const auto& path : paths)
      if (path.size() > kMaxSocketPath)
        throw ConfigError(fmt::format(
            "{}: {} needs the socket {}, which has {} bytes; at most {} fit: choose a shorter name",
            options.config, resource.fullName(), path, path.size(), kMaxSocketPath));
  }
}

std::string preparedLock(const std::string& runDirectory) {
  makeDirectory(runDirectory, 0700);
  return runDirectory + "/plugin.lock";
}

}  // namespace

Instance::Instance(PluginOptions options)
    : options_(std::move(options)),
      inotify_(loop_),
      // Reports a bad file before it waits for anything.
      catalogue_(loop_, metrics_,
                 {.config = options_.config,
                  .nodeName = options_.nodeName,
                  .sysfs = options_.sysfs,
                  .check = [this](const Config& config) { checkPaths(options_, config); }},
                 [this] { apply(); }),
      // Two plugins on one node would keep displacing each other's registration.
      lock_(preparedLock(options_.runDirectory), "vdpa-device-plugin",
            InstanceLock::Others::waitFor),
      // After the wait for another instance, during which the signals' default action is right.
      signals_(takeStopSignals()),
      signalsWatch_(loop_, signals_.get(), EPOLLIN, [this](uint32_t) { loop_.stop(); }),
      metrics_(options_.metricsAddress),
      offered_(options_.runDirectory + "/offered"),
      files_(options_.deviceInfoDirectory),
      plugins_(loop_, {options_.kubeletDirectory, options_.runDirectory}, offered_, files_,
               metrics_, {.changed = [this] { announce(); }, .retry = [this] { apply(); }}),
      deviceInfo_(
          loop_, files_, offered_,
          plugins_, [this]() -> const auto& { return catalogue_.offers().resources; },
          [this] { return pods_ ? pods_->held() : std::nullopt; }),
      features_(options_.featuresDirectory),
      featuresTimer_(loop_, [this] { writeFeatures(); }),
      explain_(std::make_unique<ExplainService>(loop_, [this] { return explain(); })) {
  startServer();
  followDatapath();
  plugins_.watch(inotify_);
  catalogue_.start(inotify_);
  plugins_.removeLeftovers(catalogue_.config());
  apply();
  followPods();
  observed_ = std::make_unique<ObserveServer>(
      Paths(options_.runDirectory, "").observe(), "device-plugin",
      [this](observe::v1::Observation& observation) { show(observation); });
}

// The kubelet's sockets first: they would stay behind if the rest exceeded the termination grace
// period, as a call to a busy kubelet may.
Instance::~Instance() {
  plugins_.clear();
  pods_.reset();
  datapath_.reset();
  loop_.waitForTickets();
  observed_.reset();
  if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
}

void Instance::startServer() {
  grpc::ServerBuilder builder;
  const std::string path = options_.runDirectory + "/plugin.sock";
  int bound = 0;
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(explain_.get());
  server_ = builder.BuildAndStart();
  if (!server_ || bound == 0) throw std::runtime_error(fmt::format("cannot listen on {}", path));
  checked(::chmod(path.c_str(), 0600), "cannot set the mode of {}", path);
}

void Instance::followDatapath() {
  const std::string socket = options_.datapathSocket.empty()
                                 ? options_.runDirectory + "/datapath.sock"
                                 : options_.datapathSocket;
  datapath_ = std::make_unique<DatapathLink>(
      loop_, socket,
      DatapathLink::Handlers{.health =
                                 [this](const DatapathLink::Changes& changes) {
                                   plugins_.setHealth(changes);
                                   announce();
                                 },
                             .lost =
                                 [this](const std::string& reason) {
                                   plugins_.forgetHealth(reason);
                                   announce();
                                 }});
}

void Instance::followPods() {
  const auto changed = [this](const std::set<PodWatch::DeviceKey>& freed) {
    loop_.post([this, freed] {
      std::set<std::string> resources;
      for (const auto& [resource, id] : freed) resources.insert(resource);
      if (!freed.empty()) deviceInfo_.tidy();
      plugins_.resend(resources);
      apply();  // devices kept only for their pods come and go
    });
  };
  pods_ = std::make_unique<PodWatch>(options_.podResources, changed);
}

void Instance::apply() {
  const auto held = pods_ ? pods_->lastHeld() : std::set<PodWatch::DeviceKey>();
  if (plugins_.offer(withHeldDevices(catalogue_.offers(), plugins_.offers(), held))) {
    deviceInfo_.renew();
    told_ = false;
  }
  if (!told_) tellDatapath();
  announce();
}

// The datapath undoes provisioning for devices that are not in the set. The set is unknown until
// the kernel's vDPA devices and the netdevs that the host needs have been read once.
void Instance::tellDatapath() {
  if (const auto missing = catalogue_.missing(); !missing.empty()) {
    const std::string reason = "not reporting devices to vdpa-datapath yet: " + missing;
    log::warn("{}", reason);
    plugins_.setAllHealth(reason);
    return;
  }
  datapath_->setOffers(catalogue_.offers().resources);
  told_ = true;
}

void Instance::announce() {
  server_->GetHealthCheckService()->SetServingStatus(plugins_.serving());
  for (const auto& [resource, registered, devices, healthy] : plugins_.summaries())
    metrics_.devices(resource, registered, healthy, devices);
  if (features_.wanted()) featuresTimer_.startWithin(kFeaturesDelay);
}

void Instance::writeFeatures() {
  if (!features_.write(featureLines(plugins_.offers(), plugins_.summaries(), datapath_->drained())))
    featuresTimer_.startWithin(kFeaturesRetry);
}

v1::ListResponse Instance::explain() const {
  auto state =
      toMessage(catalogue_.offers(), [this](const std::string& resource, const std::string& id) {
        return plugins_.healthOf(resource, id);
      });
  for (const auto& [name, registered, devices, healthy] : plugins_.summaries()) {
    auto* resource = state.add_resources();
    resource->set_name(name);
    resource->set_registered(registered);
    resource->set_devices(static_cast<uint32_t>(devices));
    resource->set_healthy(static_cast<uint32_t>(healthy));
  }
  return state;
}

void Instance::show(observe::v1::Observation& observation) {
  const auto answer = std::make_shared<std::promise<observe::v1::Plugin>>();
  auto future = answer->get_future();
  loop_.post([this, answer] {
    const auto held = pods_ ? pods_->lastHeld() : std::set<PodWatch::DeviceKey>();
    answer->set_value(observationOf(plugins_, held, metrics_));
  });
  if (future.wait_for(kObserveTime) != std::future_status::ready)
    throw std::runtime_error("the plugin is busy or shutting down");
  *observation.mutable_plugin() = future.get();
}

}  // namespace vdpa::plugin
