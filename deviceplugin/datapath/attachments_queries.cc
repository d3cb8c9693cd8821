// What vdpa-datapath tells of its devices and attachments without changing them.
#include <fmt/format.h>

#include <filesystem>

#include "common/atomic_file.h"
#include "common/log.h"
#include "deviceplugin/datapath/attachments.h"
#include "deviceplugin/datapath/device_directory.h"
#include "deviceplugin/datapath/device_files.h"
#include "deviceplugin/datapath/owner_check.h"
#include "deviceplugin/datapath/refused_error.h"
#include "deviceplugin/datapath/software_port.h"

namespace vdpa {
namespace {

class Differences {
 public:
  template <typename T>
  void compare(std::string_view what, const T& wanted, const T& found) {
    if (wanted != found) add("{} is {}; expected {}", what, found, wanted);
  }
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    texts_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> take() { return std::move(texts_); }

 private:
  std::vector<std::string> texts_;
};

void comparePort(Differences& differences, const PortSettings& wanted, const PortSettings& found) {
  differences.compare("mac", wanted.mac, found.mac);
  differences.compare("vlan", wanted.vlan, found.vlan);
  differences.compare("mtu", wanted.mtu, found.mtu);
  differences.compare("link up", wanted.linkUp, found.linkUp);
  differences.compare("spoof check", wanted.spoofCheck, found.spoofCheck);
}

void compareSwitch(Differences& differences, SwitchHandle& vswitch, const Attachment& attachment) {
  const auto status = vswitch.status();
  if (!status.up) return differences.add("{}", status.reason);
  const auto ports = vswitch.readPorts();
  if (const auto port = ports.find(attachment.deviceId); port != ports.end())
    comparePort(differences, attachment.port, port->second);
  else
    differences.add("{} has no port on the switch of {}", attachment.deviceId, attachment.resource);
}

void compareFiles(Differences& differences, const std::string& directory,
                  const Attachment& attachment) {
  if (!std::filesystem::is_socket(directory + "/vhost.sock"))
    differences.add("the socket {}/vhost.sock is missing", directory);
  try {
    const auto found = nlohmann::json::parse(readFile(directory + "/device.json"));
    if (found != deviceJson(attachment)) differences.add("{}/device.json was changed", directory);
  } catch (const std::exception& error) {
    differences.add("{}", error.what());
  }
}

}  // namespace

std::vector<std::string> Attachments::check(const AttachRequest& request) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  const auto device = table_.find(id);
  if (!device || !device->record || device->record->attachment.owner.key() != owner.key()) {
    const std::string holder =
        device && device->record ? describeOwner(device->record->attachment.owner) : "nobody";
    throw RefusedError(Refusal::notFound,
                       fmt::format("{} is not attached to interface {} of container {}, but to {}",
                                   id, owner.interface, owner.containerId, holder));
  }
  const OwnerRecord& record = *device->record;
  const Attachment& attachment = record.attachment;
  Differences differences;

  PortSettings asked = softwarePort(id, request.settings, record.software.mtu);
  if (asked.mac.empty()) asked.mac = attachment.port.mac;
  comparePort(differences, asked, attachment.port);
  if (request.ips != attachment.ips)
    differences.add("ips are {}; expected {}", fmt::join(attachment.ips, ", "),
                    fmt::join(request.ips, ", "));
  if (namespaceGone(attachment.owner.netns, record.netns))
    differences.add("the network namespace {} is gone", attachment.owner.netns);
  if (!device->worker)
    differences.add("{} has no worker", id);
  else if (const std::string state = device->worker->state(); state.starts_with("failed: "))
    differences.add("{}", state.substr(8));
  compareFiles(differences, options_.paths.device(id), attachment);
  if (const auto vswitch = switches_.find(attachment.resource))
    compareSwitch(differences, *vswitch, attachment);
  else
    differences.add("the switch of {} is not there", attachment.resource);
  return differences.take();
}

std::vector<DeviceCounters> Attachments::counters(const std::vector<std::string>& ids) {
  std::map<std::string, std::vector<std::string>> byResource;
  const auto devices = table_.all();
  for (const auto& id : ids) {
    const auto device = devices.find(id);
    if (device == devices.end())
      throw RefusedError(Refusal::notFound,
                         fmt::format("this node has no device {}; see vdpactl devices", id));
    if (!device->second.record)
      throw RefusedError(Refusal::notFound, fmt::format("{} is not attached", id));
    byResource[device->second.record->attachment.resource].push_back(id);
  }
  if (ids.empty())
    for (const auto& [id, device] : devices)
      if (device.record) byResource[device.record->attachment.resource].push_back(id);

  std::vector<DeviceCounters> counters;
  for (const auto& [resource, wanted] : byResource) {
    try {
      const auto vswitch = switches_.find(resource);
      if (!vswitch) continue;
      for (auto& device : vswitch->readCounters(wanted)) counters.push_back(std::move(device));
    } catch (const std::exception& error) {  // the other resources' counters are still worth it
      spdlog::warn("cannot read the counters of {}: {}", resource, error.what());
    }
  }
  return counters;
}

std::vector<DeviceState> Attachments::deviceStates() const {
  std::map<std::string, SupervisedProcess::Status> switches;
  std::vector<DeviceState> states;
  for (const auto& [id, device] : table_.all()) {
    if (!device.offer) continue;
    const std::string& resource = device.offer->resource;
    auto status = switches.find(resource);
    if (status == switches.end()) {
      const auto vswitch = switches_.find(resource);
      status = switches.emplace(resource, vswitch ? vswitch->status() : SupervisedProcess::Status{})
                   .first;
      if (!vswitch) status->second.reason = "the switch of " + resource + " is not there";
    }
    states.push_back({id, resource, status->second.up, status->second.reason, false});
  }
  return states;
}

std::vector<Attachments::Live> Attachments::list() const {
  std::vector<Live> attachments;
  for (const auto& [id, device] : table_.all()) {
    if (!device.record) continue;
    Live live{device.record->attachment, "failed: detaching", 0};
    if (device.worker) {
      live.state = device.worker->state();
      live.workerDeaths = device.worker->status().deaths;
    }
    attachments.push_back(std::move(live));
  }
  return attachments;
}

unsigned Attachments::engineDeaths() const {
  unsigned deaths = 0;
  for (const auto& vswitch : switches_.all()) deaths += vswitch->status().deaths;
  return deaths;
}

}  // namespace vdpa
