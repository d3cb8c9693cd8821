#include "deviceplugin/instance.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unique_fd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/naming.h"
#include "common/paths.h"
#include "common/unix_socket.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/datapath_link.h"
#include "deviceplugin/discovery/monitor.h"
#include "deviceplugin/discovery/take_snapshot.h"
#include "deviceplugin/explain_service.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/kubelet/offered_resources.h"
#include "deviceplugin/kubelet/plugin_socket.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/resources/allocated.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

// PodResources is empty for a while after a kubelet restart; nothing is removed on its word before
// that has passed.
constexpr auto kTidyAfter = std::chrono::seconds(60);

// Device-info files: a thousand take a third of a second, in which no event would be followed.
constexpr size_t kWrittenAtOnce = 32;
// Those that could not be written.
constexpr auto kWriteAgain = std::chrono::seconds(10);

// A resource that could not be.
constexpr auto kOfferAgain = std::chrono::seconds(2);

// After a look that could not tell what the host needs.
constexpr auto kRescanInterval = std::chrono::milliseconds(250);

// Two plugins on one node would take each other's registration away again and again.
UniqueFd lockNode(const std::string& path) {
  UniqueFd fd(
      checked(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "cannot open {}", path));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  log::info("another vdpa-device-plugin holds {}; waiting for its end", path);
  while (::flock(fd.get(), LOCK_EX) < 0)
    if (errno != EINTR) throw systemError(errno, "cannot lock {}", path);
  return fd;
}

UniqueFd takeSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(
      checked(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "cannot create a signalfd"));
}

std::string directoryOf(const std::string& file) {
  const auto parent = std::filesystem::path(file).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

Instance::Instance(PluginOptions options)
    : options_(std::move(options)),
      inotify_(loop_),
      metrics_(options_.metricsAddress),
      files_(options_.deviceInfoDirectory),
      explain_(std::make_unique<ExplainService>(loop_, [this] { return explain(); })) {
  if (options_.datapathSocket.empty())
    options_.datapathSocket = options_.runDirectory + "/datapath.sock";
  checkPaths(loadConfig(options_.config));  // a bad file is told before anything is waited for

  std::filesystem::create_directories(options_.runDirectory);
  ::chmod(options_.runDirectory.c_str(), 0700);
  lock_ = lockNode(options_.runDirectory + "/plugin.lock");
  offered_ = std::make_unique<OfferedResources>(options_.runDirectory + "/offered");
  // Only now: while it waits for another instance the default action of a signal is the right one.
  signals_ = takeSignals();
  loop_.watch(signals_.get(), [this] { loop_.stop(); });

  startServer();
  datapath_ = std::make_unique<DatapathLink>(
      loop_, options_.datapathSocket,
      DatapathLink::Handlers{[this](const DatapathLink::Changes& changes) {
                               for (const auto& [id, health] : changes)
                                 if (health == DeviceList::Health())
                                   health_.erase(id);
                                 else
                                   health_[id] = health;
                               for (auto& [name, plugin] : plugins_)
                                 plugin->devices().setHealth(changes);
                               announce();
                             },
                             [this](const std::string& reason) {
                               health_.clear();
                               for (auto& [name, plugin] : plugins_)
                                 plugin->devices().setAllHealth({false, reason});
                               announce();
                             }});
  watchFiles();
  configText_ = readFile(options_.config);
  config_ = parseConfig(configText_, options_.config);
  removeLeftovers();
  // Events that come from now on lead to another snapshot.
  monitor_ = std::make_unique<Monitor>(loop_, [this] { rescan(); });
  snapshot_ = look();
  apply();
  metrics_.configLoaded(true);
  pods_ = std::make_unique<PodWatch>(
      options_.podResources, [this](const std::set<PodWatch::DeviceKey>& freed) {
        loop_.post([this, freed] {
          std::set<std::string> resources;
          for (const auto& [resource, id] : freed) resources.insert(resource);
          if (!freed.empty()) tidyDeviceInfo();
          for (const auto& name : resources)
            if (const auto plugin = plugins_.find(name); plugin != plugins_.end())
              plugin->second->devices().resend();
          apply();  // what is kept for its pod alone comes and goes
        });
      });
}

Instance::~Instance() {
  monitor_.reset();
  pods_.reset();
  datapath_.reset();
  plugins_.clear();
  loop_.waitForTickets();
  if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
}

// Resources that left the configuration while no plugin ran are among the offered ones.
void Instance::removeLeftovers() const {
  auto resources = offered_->names();
  for (const auto& resource : config_.resources) resources.insert(resource.fullName());
  removeLeftoverSockets(options_.kubeletDirectory, resources);
}

void Instance::startServer() {
  grpc::ServerBuilder builder;
  const std::string path = options_.runDirectory + "/plugin.sock";
  int bound = 0;
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(explain_.get());
  server_ = builder.BuildAndStart();
  if (!server_ || bound == 0) throw std::runtime_error(fmt::format("cannot listen on {}", path));
  ::chmod(path.c_str(), 0600);
}

void Instance::watchFiles() {
  std::filesystem::create_directories(options_.kubeletDirectory);
  inotify_.watch(options_.kubeletDirectory, [this](Inotify::Change change,
                                                   const std::string& name) {
    for (auto& [resource, plugin] : plugins_) {
      if (name == "kubelet.sock")
        change == Inotify::Change::appeared ? plugin->kubeletAppeared() : plugin->kubeletVanished();
      else if (name == plugin->endpoint() && change == Inotify::Change::vanished)
        plugin->ownSocketVanished();
    }
  });
  // A ConfigMap changes by renaming a link beside the file, so any change in its directory counts;
  // reading the file tells whether it was one.
  inotify_.watch(directoryOf(options_.config), [this](Inotify::Change, const std::string&) {
    if (std::exchange(reloadPending_, true)) return;
    loop_.runAfter(std::chrono::milliseconds(50), [this] {
      reloadPending_ = false;
      reload();
    });
  });
}

void Instance::reload() {
  try {
    const std::string text = readFile(options_.config);
    if (text == configText_) return;
    const Config config = parseConfig(text, options_.config);
    checkPaths(config);
    configText_ = text;
    config_ = config;
    log::info("{} has changed", options_.config);
    metrics_.configLoaded(true);
  } catch (const std::exception& error) {
    metrics_.configLoaded(false);
    log::error("{}; the configuration stays as it was", error.what());
    return;
  }
  apply();
}

// A socket path that doesn't fit is found before anything is changed.
void Instance::checkPaths(const Config& config) const {
  const Paths datapath(options_.runDirectory, "");
  for (const auto& resource : config.resources) {
    const std::string name = fileName(resource.fullName());
    std::vector<std::string> paths{options_.kubeletDirectory + "/" +
                                   pluginSocketName(resource.fullName(), 0)};
    if (resource.software)
      paths.push_back(
          datapath.switchPort(name, softwareDeviceId(resource.name, resource.software->ports - 1)));
    for (const auto& path : paths)
      if (path.size() > kMaxSocketPath)
        throw ConfigError(fmt::format(
            "{}: {} needs the socket {}, which has {} bytes; at most {} fit: choose a shorter name",
            options_.config, resource.fullName(), path, path.size(), kMaxSocketPath));
  }
}

// Where nothing could be learned of what the host needs its netdevs for, soon again.
Snapshot Instance::look() {
  Snapshot now = takeSnapshot(options_.sysfs, netlink_);
  const auto unknown = now.skipped.find(kNetworkUse);
  if (unknown == now.skipped.end() || std::exchange(lookPending_, true)) return now;
  log::warn("no device with a netdev is offered anew: {}", unknown->second);
  loop_.runAfter(kRescanInterval, [this] {
    lookPending_ = false;
    rescan();
  });
  return now;
}

void Instance::rescan() {
  Snapshot now = look();
  // What was known before is worth more than that everything may be needed.
  if (now.skipped.contains(kNetworkUse) && !snapshot_.skipped.contains(kNetworkUse)) return;
  if (now == snapshot_) return;
  snapshot_ = std::move(now);
  apply();
}

void Instance::apply() {
  found_ = makeOffers(config_, snapshot_);
  auto offers =
      withAllocated(found_, offers_, pods_ ? pods_->lastHeld() : std::set<PodWatch::DeviceKey>());
  // Nothing of what the kubelet and the datapath know has changed in most cases.
  const bool changed = offers != offers_;
  if (changed || plugins_.empty() || incomplete_) {
    offers_ = std::move(offers);
    updatePlugins();
    told_ = told_ && !changed;
  }
  vdpaListed_ = vdpaListed_ || !snapshot_.skipped.contains("vdpa");
  networkKnown_ = networkKnown_ || !snapshot_.skipped.contains(kNetworkUse);
  if (!told_) tellDatapath();
  announce();
}

// What the datapath has provisioned, it undoes when it is not in the set. Before the first list of
// the kernel's vDPA devices, and of what the host needs, nobody knows whether it should be.
void Instance::tellDatapath() {
  const bool provisions =
      std::any_of(config_.resources.begin(), config_.resources.end(),
                  [](const ResourceConfig& resource) { return resource.provision; });
  if (provisions && (!vdpaListed_ || !networkKnown_)) {
    const std::string reason = "vdpa-datapath is not told of devices yet: " +
                               snapshot_.skipped.at(vdpaListed_ ? kNetworkUse : "vdpa");
    log::warn("{}", reason);
    for (auto& [name, plugin] : plugins_) plugin->devices().setAllHealth({false, reason});
    return;
  }
  datapath_->setOffers(found_.resources);
  told_ = true;
}

void Instance::updatePlugins() {
  auto names = offered_->names();
  for (const auto& offer : offers_) names.insert(offer.resource.fullName());
  offered_->replace(std::move(names));  // before any of their files is written
  std::erase_if(plugins_, [&](const auto& entry) {
    const bool gone = std::none_of(offers_.begin(), offers_.end(), [&](const ResourceOffer& offer) {
      return offer.resource.fullName() == entry.first;
    });
    if (gone) {
      log::info("{} is not offered any more", entry.first);
      metrics_.withdrawn(entry.first);
    }
    return gone;
  });
  for (const auto& offer : offers_)  // one that is registered with other options starts anew
    if (const auto known = plugins_.find(offer.resource.fullName());
        known != plugins_.end() && !known->second->fits(offer.resource))
      plugins_.erase(known);
  const bool kubeletThere = std::filesystem::exists(options_.kubeletDirectory + "/kubelet.sock");
  incomplete_ = false;
  for (const auto& offer : offers_) {
    const std::string name = offer.resource.fullName();
    if (const auto known = plugins_.find(name); known != plugins_.end()) {
      if (known->second->devices().setDevices(offer.devices, health_))
        log::info("{}: {} devices now", name, offer.devices.size());
      continue;
    }
    try {
      auto plugin = std::make_unique<ResourcePlugin>(
          loop_, ResourcePlugin::Paths{options_.kubeletDirectory, options_.runDirectory}, offer,
          files_, metrics_, [this] { announce(); });
      plugin->devices().setHealth(health_);
      if (kubeletThere) plugin->kubeletAppeared();
      plugins_.emplace(name, std::move(plugin));
    } catch (const std::exception& error) {  // the other resources are still worth it
      log::error("{} is not offered yet, which is tried again: {}", name, withRemedy(error));
      incomplete_ = true;
    }
  }
  if (incomplete_ && !std::exchange(offerPending_, true))
    loop_.runAfter(kOfferAgain, [this] {
      offerPending_ = false;
      apply();
    });
  if (!kubeletThere)
    log::info("waiting for the kubelet to listen on {}/kubelet.sock", options_.kubeletDirectory);
  loop_.runAfter(std::chrono::milliseconds(100),
                 [this] { writeDeviceInfo(); });  // registration comes first
  loop_.runAfter(kTidyAfter, [this] { tidyDeviceInfo(); });
}

// Those after the first `done`; devices that are listed for their pod alone have theirs. Other
// offers meanwhile bring a writing of their own.
void Instance::writeDeviceInfo(size_t done) {
  size_t seen = 0;
  try {
    for (const auto& [config, devices] : found_.resources)
      for (const auto& device : devices) {
        if (seen++ < done) continue;
        files_.write(config.fullName(), device);
        if (seen == done + kWrittenAtOnce)
          return loop_.post([this, seen] { writeDeviceInfo(seen); });
      }
  } catch (const std::exception& error) {
    log::error("{}; until then network-status lacks device information", withRemedy(error));
    if (std::exchange(writePending_, true)) return;
    loop_.runAfter(kWriteAgain, [this] {
      writePending_ = false;
      writeDeviceInfo();
    });
  }
}

// Files of devices that are offered no more and that no pod holds.
void Instance::tidyDeviceInfo() {
  const auto held = pods_->held();
  if (!held || Loop::Clock::now() - started_ < kTidyAfter) return;
  std::set<std::string> needed;
  for (const auto& resource : offered_->names()) {
    std::set<std::string> kept;
    for (const auto& [config, devices] : offers_)
      if (config.fullName() == resource)
        for (const auto& device : devices) kept.insert(device.id);
    for (const auto& [name, id] : *held)
      if (name == resource) kept.insert(id);
    files_.removeOthers(resource, kept);
    if (!kept.empty() || plugins_.contains(resource)) needed.insert(resource);
  }
  offered_->replace(std::move(needed));
}

void Instance::announce() {
  const bool serving = std::all_of(plugins_.begin(), plugins_.end(),
                                   [](const auto& entry) { return entry.second->registered(); });
  server_->GetHealthCheckService()->SetServingStatus(serving && !plugins_.empty() && !incomplete_);
  for (auto& [name, plugin] : plugins_)
    metrics_.devices(name, plugin->registered(), plugin->devices().healthyCount(),
                     plugin->devices().size());
}

plugin::v1::ListResponse Instance::explain() const {
  auto state = toMessage(found_, [this](const std::string& resource, const std::string& id) {
    const auto plugin = plugins_.find(resource);
    if (plugin != plugins_.end()) return plugin->second->devices().healthOf(id);
    return DeviceList::Health{false, resource + " is not offered yet: see the plugin's log"};
  });
  for (const auto& [name, plugin] : plugins_) {
    auto* resource = state.add_resources();
    resource->set_name(name);
    resource->set_registered(plugin->registered());
    resource->set_devices(static_cast<uint32_t>(plugin->devices().size()));
    resource->set_healthy(static_cast<uint32_t>(plugin->devices().healthyCount()));
  }
  return state;
}

}  // namespace vdpa::plugin
