// ADD, DEL, CHECK, GC, STATUS and VERSION.
#include "cni/commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cni/datapath_client.h"
#include "cni/device_config.h"
#include "cni/device_info.h"
#include "cni/environment.h"
#include "cni/error.h"
#include "cni/ipam.h"
#include "cni/network_config.h"
#include "cni/network_paths.h"
#include "cni/result.h"
#include "cni/settings_in_force.h"
#include "common/cni_calls.h"
#include "common/json.h"
#include "common/log.h"
#include "common/paths.h"
#include "common/port_settings.h"
#include "common/rollback.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

// A healthy datapath answers at once, and a runtime waits for STATUS before every pod.
constexpr std::chrono::seconds kStatusTime{1};
// The longest that a pod's termination waits for an IPAM plugin.
constexpr std::chrono::seconds kIpamDelTime{10};

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

Ipam ipamOf(const NetworkConfig& network, const Environment& environment) {
  return Ipam(network.ipamType, environment.path, network.text);
}

// Returns IPAM's result and updates `attachment`.
json addAddresses(const Environment& environment, const NetworkConfig& network,
                  DatapathClient& datapath, datapath::v1::Attachment& attachment) {
  const std::string& type = network.ipamType;
  const json given = ipamOf(network, environment).run("ADD");
  datapath::v1::SetAddressesRequest request;
  request.set_container_id(environment.containerId);
  request.set_interface(environment.interface);
  for (const auto& address : addressesOf(given, type)) request.add_ips(address);
  for (const auto& route : routesOf(given, type)) *request.add_routes() = route;
  const auto response = datapath.setAddresses(request);
  requireInForce(request, response);
  attachment = response.attachment();
  return given;
}

// The dhcp plugin speaks through the pod's own interface.
void requireInterface(const datapath::v1::Attachment& attachment) {
  if (attachment.socket().empty()) return;
  throw Error(
      Code::invalidConfig,
      fmt::format("ipam.type 'dhcp' needs an interface in the pod, but the pod gets {} as {}; use "
                  "host-local or static, or a resource with 'attach: virtio-vdpa'",
                  attachment.device_id(), attachment.socket()));
}

std::string add(const Environment& environment, const NetworkConfig& network) {
  const DeviceConfig device = parseDeviceConfig(network, environment);
  DatapathClient datapath(network.datapathSocket);
  datapath::v1::AttachRequest request;
  fillOwner(*request.mutable_owner(), environment, network);
  fillMessage(*request.mutable_settings(), device.settings);
  request.set_device_id(device.deviceId);
  const bool hasIpam = !network.ipamType.empty();
  request.set_addresses_follow(hasIpam);

  // A second ADD is refused here, before it could touch what belongs to the first.
  const auto response = datapath.attach(request);
  Rollback undo;
  undo.add([&] { datapath.detach(environment.containerId, environment.interface); });
  requireInForce(request, response);
  auto attachment = response.attachment();
  // An IPAM plugin that failed half-way may have reserved addresses.
  if (network.ipamType == "dhcp") requireInterface(attachment);
  undo.add([&] {
    if (hasIpam) ipamOf(network, environment).run("DEL", kIpamDelTime);
  });
  json given;
  if (hasIpam) given = addAddresses(environment, network, datapath, attachment);
  const std::string result = jsonText(makeResult(network, environment, attachment, given), 2);
  if (!device.infoFile.empty()) writeDeviceInfo(device.infoFile, attachment);
  undo.commit();
  log::info("attached {} to {} of {} ({})", device.deviceId, environment.interface,
            environment.containerId, network.name);
  return result;
}

// A failing DEL blocks the pod's termination, so it fails only if a resource could not be released,
// and only after all others were. If the datapath is gone, there is no worker to stop; the record
// stays, and the next owner takes the device over. An IPAM plugin that is no longer installed has
// no address to release. IPAM comes first, as it may use the pod's interface.
std::string del(const Environment& environment, const NetworkConfig& network) {
  const auto warn = [&](const std::string& what) {
    log::warn("DEL of {} {}: {}", environment.containerId, environment.interface, what);
  };
  if (!network.ignored.empty()) warn("ignoring a part of the configuration: " + network.ignored);
  try {
    const std::string info = parseDeviceInfo(network, environment);
    if (!info.empty()) removeUnfinishedDeviceInfo(info);
  } catch (const std::exception& error) {
    warn(error.what());  // only a file is left behind
  }
  std::exception_ptr failure;
  if (!network.ipamType.empty()) {
    const Ipam ipam = ipamOf(network, environment);
    if (!ipam.installed())
      warn(fmt::format("IPAM plugin '{}' is not in CNI_PATH", network.ipamType));
    else
      try {
        ipam.run("DEL", kIpamDelTime);
      } catch (const std::exception& error) {
        failure = std::current_exception();
        warn(error.what());
      }
  }
  try {
    DatapathClient(network.datapathSocket).detach(environment.containerId, environment.interface);
  } catch (const Error& error) {
    if (error.code() != static_cast<int>(Code::tryAgainLater)) failure = std::current_exception();
    warn(error.what());
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
  datapath::v1::CheckRequest request;
  fillOwner(*request.mutable_owner(), environment, network);
  fillMessage(*request.mutable_settings(), device.settings);
  request.set_device_id(device.deviceId);
  const auto ask = [&](const Comparison::Reported& reported) {
    request.mutable_ips()->Assign(reported.ips.begin(), reported.ips.end());
    request.set_interface_mac(reported.mac);
    request.set_interface_mtu(reported.mtu);
    return datapath.check(request);
  };
  datapath::v1::Attachment expected;
  expected.mutable_settings()->set_mac(request.settings().mac());
  const auto reported = compareResult(*network.prevResult, environment, expected).reported;
  auto response = ask(reported);
  if (!response.has_attachment()) {  // a datapath of 0.1.0 has it in its list only
    const auto list = datapath.list();
    for (const auto& attachment : list.attachments())
      if (attachment.owner().container_id() == environment.containerId &&
          attachment.owner().interface() == environment.interface)
        *response.mutable_attachment() = attachment;
  }
  std::vector<std::string> differences;
  if (response.has_attachment()) {
    auto comparison = compareResult(*network.prevResult, environment, response.attachment());
    // Another interface of the chain has our name, and only the attachment's MAC shows which is
    // ours.
    if (comparison.reported != reported) response = ask(comparison.reported);
    differences = std::move(comparison.differences);
  }
  differences.insert(differences.end(), response.differences().begin(),
                     response.differences().end());
  if (!differences.empty())
    throw Error(Code::checkFailed,
                fmt::format("{} of {} differs from how it was set up", environment.interface,
                            environment.containerId),
                fmt::format("{}", fmt::join(differences, "; ")));
  if (!network.ipamType.empty()) ipamOf(network, environment).run("CHECK");
  return "";
}

// Failures are reported at the end and stop nothing: everything that can be collected is.
std::string collectGarbage(const Environment& environment, const NetworkConfig& network) {
  std::exception_ptr failure;
  const auto attempt = [&](const auto& step) {
    try {
      step();
    } catch (const std::exception& error) {
      log::error("GC of network {}: {}", network.name, error.what());
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
    log::info("GC of network {}: detaching {} from {} of {}", network.name, attachment.device_id(),
              owner.interface(), owner.container_id());
    // As in DEL: many IPAM plugins have no GC of their own.
    if (!network.ipamType.empty())
      attempt([&] {
        Ipam(network.ipamType, environment.path, network.text,
             {{"CNI_CONTAINERID", owner.container_id()},
              {"CNI_IFNAME", owner.interface()},
              {"CNI_NETNS", owner.netns()}})
            .run("DEL", kIpamDelTime);
      });
    attempt([&] { datapath.detach(owner.container_id(), owner.interface()); });
  }
  if (!network.ipamType.empty()) attempt([&] { ipamOf(network, environment).run("GC"); });
  if (failure) std::rethrow_exception(failure);
  return "";
}

std::string status(const Environment& environment, const NetworkConfig& network) {
  std::string notReady;
  try {
    notReady = DatapathClient(network.datapathSocket).list(kStatusTime).not_ready();
  } catch (const Error& error) {
    throw Error(Code::notAvailable, error.what(), error.details());
  }
  if (!notReady.empty())
    throw Error(Code::notAvailable, "no device can be attached on this node: " + notReady);
  if (!network.ipamType.empty()) ipamOf(network, environment).run("STATUS");
  return "";
}

void startLogging(const NetworkConfig& network) {
  initLogging("vdpa-cni", network.logLevel, "text");
  if (network.logFile.empty()) return;
  try {
    ::dup2(openLog(network.logFile).get(), STDERR_FILENO);
  } catch (const std::exception& error) {
    log::error("{}; name a regular file that no link leads to; logging to standard error",
               error.what());
  }
}

std::string run(const Environment& environment, const NetworkConfig& network) {
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

}  // namespace

std::string versionAnswer(const std::string& config) {
  return jsonText(
      json{{"cniVersion", answerVersion(config)}, {"supportedVersions", kSupportedVersions}});
}

std::string execute(const Environment& environment, const std::string& config) {
  if (environment.command == Command::version) return versionAnswer(config);
  NetworkConfig network;  // until it is parsed, with the usual socket
  const auto count = [&](int code) {
    const std::string directory = std::filesystem::path(network.datapathSocket).parent_path();
    countCniCall(Paths(directory, "").cniCalls(), commandName(environment.command),
                 static_cast<unsigned>(code));
  };
  try {
    network = parseNetworkConfig(config, environment);
    startLogging(network);
    std::string answer = run(environment, network);
    count(0);
    return answer;
  } catch (const Error& error) {
    count(error.code());
    throw;
  } catch (const std::exception&) {
    count(static_cast<int>(Code::ioFailure));  // as main() reports it
    throw;
  }
}

}  // namespace vdpa::cni
