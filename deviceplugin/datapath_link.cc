// All calls are asynchronous; their results are posted to the loop.
#include "deviceplugin/datapath_link.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/backend.h"
#include "common/event_loop.h"
#include "common/known_fields.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/port_policy.h"
#include "common/uplink_config.h"
#include "common/version.h"
#include "datapath.grpc.pb.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/device.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

constexpr auto kRetry = std::chrono::milliseconds(100);
constexpr auto kSetDeadline = std::chrono::seconds(10);
// A hanging datapath counts as unreachable: keepalive pings detect it.
constexpr int kPingInterval = 2000;  // ms
constexpr int kPingTimeout = 5000;   // ms

void describe(const Device& device, const ResourceConfig& config, datapath::v1::Device& message) {
  message.set_id(device.id);
  message.set_attach(nameOf(device.attach));
  message.set_queue_pairs(device.queuePairs);
  if (device.numaNode >= 0) message.set_numa_node(device.numaNode);
  if (device.backend == BackendKind::kernel) {
    auto* kernel = message.mutable_kernel();
    kernel->set_vdpa(device.vdpa);
    kernel->set_management_device(device.managementDevice);
    kernel->set_provision(device.provision);
    kernel->set_pci_address(device.pciAddress);
    kernel->set_pci_driver(device.pciDriver);
    if (device.attributes != VdpaAttributes()) {
      auto* attributes = kernel->mutable_attributes();
      if (const auto pairs = device.attributes.queuePairs) attributes->set_queue_pairs(*pairs);
      if (const auto features = device.attributes.features) attributes->set_features(*features);
      attributes->set_mtu(device.attributes.mtu);
    }
    auto* parent = kernel->mutable_parent();
    parent->set_driver(device.rules.driver);
    parent->set_mac_when_made(device.rules.macWhenMade);
    parent->set_mtu_when_made(device.rules.mtuWhenMade);
    parent->set_mac_later(device.rules.macLater);
  } else if (device.backend == BackendKind::dpdk) {
    auto* dpdk = message.mutable_dpdk();
    dpdk->set_pci_address(device.pciAddress);
    dpdk->set_driver(device.dpdkDriver);
    dpdk->set_devargs(config.devargs);
  }
}

std::shared_ptr<const datapath::v1::SetDevicesRequest> requestOf(
    const std::vector<ResourceOffer>& offers) {
  auto request = std::make_shared<datapath::v1::SetDevicesRequest>();
  for (const auto& [config, devices] : offers) {
    auto* resource = request->add_resources();
    resource->set_name(config.fullName());
    auto* socket = resource->mutable_socket();
    socket->set_uid(config.socket.uid);
    socket->set_gid(config.socket.gid);
    socket->set_mode(config.socket.mode);
    socket->set_selinux_label(config.socket.selinuxLabel);
    if (config.software) {
      auto* software = resource->mutable_software();
      software->set_queue_pairs(config.software->queuePairs);
      software->set_mtu(config.software->mtu);
      const UplinkConfig& uplink = config.software->uplink;
      software->set_uplink_netdev(uplink.netdev);
      software->set_uplink_xdp(uplink.xdp);
      software->set_uplink_pci(uplink.pci);
      software->set_cores(config.software->cores);
      // A datapath that does not know these does what the defaults say, as far as it can.
      const PortPolicy& policy = config.software->policy;
      if (policy.offloads != PortPolicy().offloads) software->set_offloads(policy.offloads);
      if (policy.stormLimit != PortPolicy().stormLimit)
        software->set_storm_limit(policy.stormLimit);
    }
    for (const auto& device : devices) describe(device, config, *resource->add_devices());
  }
  return request;
}

// A field's name in the configuration.
std::string keyOf(const std::string& field) {
  if (field == "KernelDevice.attributes") return "vdpa";
  if (field == "SoftwareSwitch.uplink_pci") return "software.uplink.pci";
  if (field == "SoftwareSwitch.uplink_xdp") return "software.uplink.xdp";
  if (field == "SoftwareSwitch.offloads") return "software.offloads";
  if (field == "SoftwareSwitch.storm_limit") return "software.stormLimit";
  return field;
}

std::set<std::string> unknownKeys(const datapath::v1::Receiver* receiver,
                                  const datapath::v1::Resource& resource) {
  std::set<std::string> keys;
  for (const auto& field : unknownTo(receiver, resource)) keys.insert(keyOf(field));
  return keys;
}

// The resource without the default attributes, by which devices get everything that their parents
// have.
datapath::v1::Resource configuredOf(datapath::v1::Resource resource) {
  for (auto& device : *resource.mutable_devices()) {
    const auto& attributes = device.kernel().attributes();
    if (attributes.queue_pairs() == 0 && attributes.features() == 0 && attributes.mtu() == 0 &&
        device.has_kernel())
      device.mutable_kernel()->clear_attributes();
  }
  return resource;
}

// The parts of a device set that are not in force.
struct Lack {
  std::map<std::string, std::string> devices;  // that pods must not get, with the reason
  std::vector<std::string> warnings;
};

// A null `receiver` is a datapath of release 0.1.0.
Lack lackOf(const datapath::v1::SetDevicesRequest& request,
            const datapath::v1::Receiver* receiver) {
  const std::string version = receiver ? receiver->version() : "0.1.0";
  Lack lack;
  for (const auto& resource : request.resources()) {
    if (unknownTo(receiver, resource).empty()) continue;
    const auto keys = unknownKeys(receiver, configuredOf(resource));
    if (keys.empty()) {
      lack.warnings.push_back(
          fmt::format("{}: vdpa-datapath {} is older than this program and makes vDPA devices with "
                      "their drivers' defaults: update it",
                      resource.name(), version));
      continue;
    }
    const bool one = keys.size() == 1;
    const std::string names = fmt::format("{}", fmt::join(keys, ", "));
    lack.warnings.push_back(fmt::format(
        "{}: {} {} not in force: vdpa-datapath {} does not know {}, vdpa-device-plugin {} does: "
        "update vdpa-datapath on this node (delete its pod), or remove {} from the configuration",
        resource.name(), names, one ? "is" : "are", version, one ? "it" : "them", programVersion(),
        names));
    for (const auto& device : resource.devices()) lack.devices[device.id()] = lack.warnings.back();
  }
  return lack;
}

}  // namespace

// One connection: SetDevices, then Watch until it ends. Keeps itself alive until gRPC has finished
// with it.
class DatapathLink::Session : public grpc::ClientReadReactor<datapath::v1::WatchResponse>,
                              public std::enable_shared_from_this<Session> {
 public:
  using Read = std::function<void(const datapath::v1::WatchResponse&)>;
  using Set = std::function<void(const datapath::v1::SetDevicesResponse&)>;
  using Done = std::function<void(const std::string&)>;

  Session(EventLoop& loop, const std::string& socketPath, Set onSet, Read onRead, Done onDone)
      : ticket_(loop),
        onSet_(std::move(onSet)),
        onRead_(std::move(onRead)),
        onDone_(std::move(onDone)) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kPingInterval);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeout);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    stub_ = datapath::v1::Datapath::NewStub(grpc::CreateCustomChannel(
        "unix:" + socketPath, grpc::InsecureChannelCredentials(), arguments));
  }

  // Sends this set, then watches. After the first time it only sends the set: one call at a time,
  // then the newest set, since two calls could overtake each other.
  void set(std::shared_ptr<const datapath::v1::SetDevicesRequest> devices) {
    {
      Lock lock(mutex_);
      next_ = std::move(devices);
    }
    sendNext();
  }

  void cancel() {
    watchContext_.TryCancel();
    Lock lock(mutex_);
    if (setting_) setting_->context.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    onRead_(response_);
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    onDone_(status.ok() ? "it stopped" : status.error_message());
    keep_.reset();
  }

 private:
  struct SetCall {
    grpc::ClientContext context;
    std::shared_ptr<const datapath::v1::SetDevicesRequest> request;
    datapath::v1::SetDevicesResponse response;
  };

  void sendNext() {
    const auto call = std::make_shared<SetCall>();
    {
      Lock lock(mutex_);
      if (setting_ || !next_) return;
      call->request = std::exchange(next_, nullptr);
      setting_ = call;
    }
    call->context.set_deadline(std::chrono::system_clock::now() + kSetDeadline);
    stub_->async()->SetDevices(&call->context, call->request.get(), &call->response,
                               [self = shared_from_this(), call](const grpc::Status& status) {
                                 status.ok() ? self->onAnswer(call->response)
                                             : self->onFailure(status.error_message());
                               });
  }

  void onAnswer(const datapath::v1::SetDevicesResponse& response) {
    onSet_(response);
    if (!watching_) watch();
    {
      Lock lock(mutex_);
      setting_ = nullptr;
    }
    sendNext();
  }

  // No set is sent after that: setting_ stays.
  void onFailure(const std::string& reason) {
    if (watching_)
      cancel();  // OnDone() reports the end
    else
      onDone_(reason);
  }

  void watch() {
    watching_ = true;
    keep_ = shared_from_this();
    stub_->async()->Watch(&watchContext_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  EventLoop::Ticket ticket_;  // first: outlives the other members
  Set onSet_;
  Read onRead_;
  Done onDone_;
  Mutex mutex_;
  // NOLINTNEXTLINE(misc-include-cleaner): Abseil, in gRPC's headers, has a macro of this name too.
  std::shared_ptr<SetCall> setting_ GUARDED_BY(mutex_);
  std::shared_ptr<const datapath::v1::SetDevicesRequest> next_ GUARDED_BY(mutex_);
  bool watching_ = false;  // of the calls' callbacks, which follow each other
  std::unique_ptr<datapath::v1::Datapath::Stub> stub_;
  grpc::ClientContext watchContext_;
  datapath::v1::WatchRequest request_;
  datapath::v1::WatchResponse response_;
  std::shared_ptr<Session> keep_;
};

DatapathLink::DatapathLink(EventLoop& loop, std::string socketPath, Handlers handlers)
    : loop_(loop),
      socketPath_(std::move(socketPath)),
      handlers_(std::move(handlers)),
      lifetime_(loop),
      reconnect_(loop, [this] {
        if (!session_) connect();
      }) {}

DatapathLink::~DatapathLink() {
  if (session_) session_->cancel();
}

void DatapathLink::setOffers(const std::vector<ResourceOffer>& offers) {
  devices_ = requestOf(offers);
  judge();  // fields that the datapath is known not to know count at once, before its next answer
  if (session_)
    session_->set(devices_);
  else
    connect();
}

void DatapathLink::connect() {
  // Drop what a session posts after its end: it must not count for the next one.
  const auto post = [this, poster = lifetime_.poster(), session = ++sessions_](auto what) {
    poster([this, session, what = std::move(what)] {
      if (session_ && session == sessions_) what();
    });
  };
  session_ = std::make_shared<Session>(
      loop_, socketPath_,
      [this, post](const datapath::v1::SetDevicesResponse& response) {
        post([this, response] { learn(response); });
      },
      [this, post](const datapath::v1::WatchResponse& response) {
        post([this, response] { take(response); });
      },
      [this, post](const std::string& reason) { post([this, reason] { sessionEnded(reason); }); });
  session_->set(devices_);
}

void DatapathLink::take(const datapath::v1::WatchResponse& response) {
  for (const auto& device : response.devices()) drained_ = drained_ || device.drained();
  if (!lastReason_.empty()) log::info("reached vdpa-datapath on {}", socketPath_);
  lastReason_.clear();
  Changes changes;
  for (const auto& device : response.devices()) {
    if (device.removed())
      reported_.erase(device.id());
    else
      reported_[device.id()] = {device.healthy(), device.reason()};
    changes[device.id()] = healthOf(device.id());
  }
  handlers_.health(changes);
}

// Called after each set, the first time before the Watch reports anything. An answer covers only
// its own set: fields that were unknown in earlier sets stay unknown.
void DatapathLink::learn(const datapath::v1::SetDevicesResponse& response) {
  answered_ = true;
  if (response.has_receiver()) {
    const auto& now = response.receiver();
    std::set<std::string> unknown(now.unknown_fields().begin(), now.unknown_fields().end());
    if (receiver_)
      unknown.insert(receiver_->unknown_fields().begin(), receiver_->unknown_fields().end());
    receiver_ = now;
    receiver_->mutable_unknown_fields()->Assign(unknown.begin(), unknown.end());
  }
  judge();
}

void DatapathLink::judge() {
  if (!answered_) return;
  auto [lacking, warnings] = lackOf(*devices_, receiver_ ? &*receiver_ : nullptr);
  for (const auto& warning : warnings)
    if (warned_.insert(warning).second) log::warn("{}", warning);
  lacking_.swap(lacking);
  Changes changes;
  for (const auto& [id, reason] : lacking) changes[id] = healthOf(id);
  for (const auto& [id, reason] : lacking_) changes[id] = healthOf(id);
  if (!changes.empty()) handlers_.health(changes);
}

DeviceList::Health DatapathLink::healthOf(const std::string& id) const {
  if (const auto lacking = lacking_.find(id); lacking != lacking_.end())
    return {false, lacking->second};
  const auto reported = reported_.find(id);
  return reported == reported_.end() ? DeviceList::Health() : reported->second;
}

void DatapathLink::sessionEnded(const std::string& reason) {
  session_.reset();
  answered_ = false;
  drained_ = false;
  receiver_.reset();
  reported_.clear();
  lacking_.clear();
  warned_.clear();
  const std::string text = fmt::format("cannot reach vdpa-datapath on {}: {}", socketPath_, reason);
  if (text != lastReason_) log::warn("{}", text);
  lastReason_ = text;
  handlers_.lost(text);
  reconnect_.start(kRetry);
}

}  // namespace vdpa::plugin
