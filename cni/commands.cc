// ADD, DEL, CHECK, GC, STATUS and VERSION.
#include "cni/commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>

#include "cni/datapath_client.h"
#include "cni/device_info.h"
#include "cni/error.h"
#include "cni/ipam.h"
#include "cni/network_config.h"
#include "cni/result.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

// A datapath that is well answers at once, and a runtime waits for STATUS before every pod.
constexpr std::chrono::seconds kStatusTime{1};

// Runs `undo` unless committed.
class Guard {
 public:
  explicit Guard(std::function<void()> undo) : undo_(std::move(undo)) {}
  ~Guard() {
    if (!undo_) return;
    try {
      undo_();
    } catch (const std::exception& error) {
      spdlog::error("while undoing: {}", error.what());
    }
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void commit() { undo_ = nullptr; }

 private:
  std::function<void()> undo_;
};

std::string argument(const Environment& environment, const char* key) {
  const auto found = environment.args.find(key);
  return found == environment.args.end() ? "" : found->second;
}

void fillOwner(datapath::v1::Owner& owner, const Environment& environment,
               const NetworkConfig& network) {
  owner.set_container_id(environment.containerId);
  owner.set_interface(environment.interface);
  owner.set_netns(environment.netns);
  owner.set_network(network.name);
  owner.set_pod_namespace(argument(environment, "K8S_POD_NAMESPACE"));
  owner.set_pod_name(argument(environment, "K8S_POD_NAME"));
  owner.set_pod_uid(argument(environment, "K8S_POD_UID"));
}

void fillSettings(datapath::v1::Settings& settings, const DeviceConfig& device) {
  settings.set_mac(device.mac);
  if (device.vlan) settings.set_vlan(*device.vlan);
  if (device.vlanQos) settings.set_vlan_qos(*device.vlanQos);
  settings.set_vlan_proto(device.vlanProto);
  if (device.spoofCheck) settings.set_spoof_check(*device.spoofCheck);
  if (device.trust) settings.set_trust(*device.trust);
  settings.set_link_state(device.linkState);
  if (device.minTxRate) settings.set_min_tx_rate(*device.minTxRate);
  if (device.maxTxRate) settings.set_max_tx_rate(*device.maxTxRate);
  settings.set_mtu(device.mtu);
}

Ipam ipamOf(const NetworkConfig& network, const Environment& environment) {
  return Ipam(network.ipamType, environment.path, network.text);
}

std::optional<datapath::v1::Attachment> findAttachment(DatapathClient& datapath,
                                                       const Environment& environment) {
  const auto list = datapath.list();
  for (const auto& attachment : list.attachments())
    if (attachment.owner().container_id() == environment.containerId &&
        attachment.owner().interface() == environment.interface)
      return attachment;
  return std::nullopt;
}

std::string add(const Environment& environment, const NetworkConfig& network) {
  const DeviceConfig device = parseDeviceConfig(network, environment);
  const Ipam ipam = ipamOf(network, environment);
  DatapathClient datapath(network.datapathSocket);
  // Before IPAM: rolling back a second ADD would release the addresses that the first one uses.
  if (!network.ipamType.empty() && findAttachment(datapath, environment))
    throw Error(Code::alreadyAttached,
                fmt::format("interface {} of container {} is attached already; DEL comes first",
                            environment.interface, environment.containerId));
  datapath::v1::AttachRequest request;
  fillOwner(*request.mutable_owner(), environment, network);
  fillSettings(*request.mutable_settings(), device);
  request.set_device_id(device.deviceId);

  // An IPAM plugin that failed half-way may have reserved something too: its DEL runs for every
  // failure from here on.
  Guard addresses([&] {
    if (!network.ipamType.empty()) ipam.run("DEL");
  });
  json given;
  if (!network.ipamType.empty()) {
    given = ipam.run("ADD");
    for (const auto& address : addressesOf(given, network.ipamType)) request.add_ips(address);
    for (const auto& route : routesOf(given, network.ipamType)) *request.add_routes() = route;
  }

  const auto attachment = datapath.attach(request);
  Guard attached([&] { datapath.detach(environment.containerId, environment.interface); });
  const std::string result = makeResult(network, environment, attachment, given).dump(2);
  if (!network.deviceInfoFile.empty() && hasSocket(attachment))
    createDeviceInfo(network.deviceInfoFile, attachment.socket());
  attached.commit();
  addresses.commit();
  spdlog::info("attached {} to {} of {} ({})", device.deviceId, environment.interface,
               environment.containerId, network.name);
  return result;
}

// A DEL that fails keeps the pod from ending, so it fails only while there is something to give
// back that could not be. A node without its datapath has no worker to stop; the record stays, and
// the next owner takes the device over. An IPAM plugin that is gone has no address to give back.
std::string del(const Environment& environment, const NetworkConfig& network) {
  if (!network.ignored.empty())
    spdlog::warn("DEL of {} {} goes on without a part of the configuration: {}",
                 environment.containerId, environment.interface, network.ignored);
  std::exception_ptr failure;
  try {
    DatapathClient(network.datapathSocket).detach(environment.containerId, environment.interface);
  } catch (const Error& error) {
    if (error.code() != static_cast<int>(Code::tryAgainLater)) failure = std::current_exception();
    spdlog::warn("DEL of {} {}: {}", environment.containerId, environment.interface, error.what());
  }
  if (!network.ipamType.empty()) {
    const Ipam ipam = ipamOf(network, environment);
    if (ipam.installed())
      ipam.run("DEL");
    else
      spdlog::warn("DEL of {} {}: IPAM plugin '{}' is not in CNI_PATH", environment.containerId,
                   environment.interface, network.ipamType);
  }
  if (failure) std::rethrow_exception(failure);
  return "";
}

std::string check(const Environment& environment, const NetworkConfig& network) {
  const DeviceConfig device = parseDeviceConfig(network, environment);
  if (!network.prevResult)
    throw Error(Code::invalidConfig,
                "CHECK needs prevResult, the result of ADD, in the configuration");
  DatapathClient datapath(network.datapathSocket);
  const auto attachment = findAttachment(datapath, environment);
  if (!attachment)
    throw Error(Code::unknownContainer,
                fmt::format("container {} has no attachment {} on this node",
                            environment.containerId, environment.interface));
  auto [differences, addresses] = compareResult(*network.prevResult, environment, *attachment);

  datapath::v1::CheckRequest request;
  fillOwner(*request.mutable_owner(), environment, network);
  fillSettings(*request.mutable_settings(), device);
  request.set_device_id(device.deviceId);
  for (const auto& address : addresses) request.add_ips(address);
  const auto more = datapath.check(request);
  differences.insert(differences.end(), more.begin(), more.end());
  if (!differences.empty())
    throw Error(Code::checkFailed,
                fmt::format("{} of {} is not as it was set up", environment.interface,
                            environment.containerId),
                fmt::format("{}", fmt::join(differences, "; ")));
  if (!network.ipamType.empty()) ipamOf(network, environment).run("CHECK");
  return "";
}

// What fails is told at the end and stops nothing: garbage that can be collected is.
std::string collectGarbage(const Environment& environment, const NetworkConfig& network) {
  std::exception_ptr failure;
  const auto attempt = [&](const auto& step) {
    try {
      step();
    } catch (const std::exception& error) {
      spdlog::error("GC of network {}: {}", network.name, error.what());
      if (!failure) failure = std::current_exception();
    }
  };
  DatapathClient datapath(network.datapathSocket);
  datapath::v1::ListResponse list;
  attempt([&] { list = datapath.list(); });
  const auto& valid = network.validAttachments;
  for (const auto& attachment : list.attachments()) {
    const auto& owner = attachment.owner();
    if (owner.network() != network.name) continue;
    const std::pair<std::string, std::string> key{owner.container_id(), owner.interface()};
    if (std::find(valid.begin(), valid.end(), key) != valid.end()) continue;
    spdlog::info("GC of network {}: detaching {} from {} of {}", network.name,
                 attachment.device_id(), owner.interface(), owner.container_id());
    attempt([&] { datapath.detach(owner.container_id(), owner.interface()); });
  }
  if (!network.ipamType.empty()) attempt([&] { ipamOf(network, environment).run("GC"); });
  if (failure) std::rethrow_exception(failure);
  return "";
}

std::string status(const Environment& environment, const NetworkConfig& network) {
  try {
    DatapathClient(network.datapathSocket).list(kStatusTime);
  } catch (const Error& error) {
    throw Error(Code::notAvailable, error.what(), error.details());
  }
  if (!network.ipamType.empty()) ipamOf(network, environment).run("STATUS");
  return "";
}

void startLogging(const NetworkConfig& network) {
  initLogging("vdpa-cni", network.logLevel, "text");
  if (network.logFile.empty()) return;
  const UniqueFd file(::open(network.logFile.c_str(),
                             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640));
  if (!file) {
    spdlog::error("cannot open logFile {}: {}; logging to standard error", network.logFile,
                  std::strerror(errno));
    return;
  }
  ::dup2(file.get(), STDERR_FILENO);
}

}  // namespace

std::string versionAnswer(const std::string& config) {
  return json{{"cniVersion", answerVersion(config)}, {"supportedVersions", kSupportedVersions}}
      .dump();
}

std::string execute(const Environment& environment, const std::string& config) {
  if (environment.command == Command::version) return versionAnswer(config);
  const NetworkConfig network = parseNetworkConfig(config, environment.command);
  startLogging(network);
  switch (environment.command) {
    case Command::add:
      return add(environment, network);
    case Command::del:
      return del(environment, network);
    case Command::check:
      return check(environment, network);
    case Command::gc:
      return collectGarbage(environment, network);
    default:
      return status(environment, network);
  }
}

}  // namespace vdpa::cni
