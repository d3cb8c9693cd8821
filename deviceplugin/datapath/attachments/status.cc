#include "deviceplugin/datapath/attachments/status.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/log.h"
#include "common/naming.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/device_state.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/pod_files/device_files.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

void compareFiles(Differences& differences, const std::string& directory,
                  const OwnerRecord& record) {
  if (record.attachment.socket == podSocket(record.attachment.deviceId) &&
      !std::filesystem::is_socket(directory + "/vhost.sock"))
    differences.add("the socket {}/vhost.sock is missing", directory);
  try {
    const auto found = parseJson(readFile(directory + "/device.json"));
    if (found != deviceJson(record)) differences.add("{}/device.json was changed", directory);
  } catch (const std::exception& error) {
    differences.add("{}", error.what());
  }
}

}  // namespace

Status::Checked Status::check(const CheckRequest& request) {
  const Owner& owner = request.owner;
  const std::string& id = request.deviceId;
  const auto device = node_.table.find(id);
  if (!device || !device->record || device->record->attachment.owner.key() != owner.key()) {
    if (device && device->withheld())
      throw RefusedError(Refusal::aborted, fmt::format("{}: {}", id, device->error));
    const std::string holder =
        device && device->record ? describeOwner(device->record->attachment.owner) : "none";
    const bool hasAnother = node_.table
                                .findRecord([&](const OwnerRecord& other) {
                                  return other.attachment.owner.key() == owner.key();
                                })
                                .has_value();
    throw RefusedError(
        hasAnother ? Refusal::invalidArgument : Refusal::notFound,
        fmt::format("{} is not attached to interface {} of container {}; its owner: {}", id,
                    owner.interface, owner.containerId, holder));
  }
  const OwnerRecord& record = *device->record;
  const Attachment& attachment = record.attachment;
  Differences differences;

  Backend& backend = node_.backends.of(record.device);
  PortSettings asked = backend.resolve(
      id, {attachment.resource, record.socket, record.software, record.device}, request.settings);
  if (record.device.backend != BackendKind::software)
    asked = hardwareSettings(id, request.settings, attachment.port);
  if (!asked.mac) asked.mac = attachment.port.mac;
  if (!asked.mtu) asked.mtu = attachment.port.mtu;
  comparePorts(differences, asked, attachment.port);
  if (request.ips != attachment.ips)
    differences.add("ips are {}; expected {}", fmt::join(attachment.ips, ", "),
                    fmt::join(request.ips, ", "));
  if (namespaceGone(attachment.owner.netns, record.netns))
    differences.add("the network namespace {} is gone", attachment.owner.netns);
  if (!device->worker && attachment.socket == podSocket(id))
    differences.add("{} has no worker", id);
  else if (device->worker)
    if (const auto state = device->worker->settledState(); state.failed())
      differences.add("{}", state.reason);
  compareFiles(differences, node_.options.paths.device(id), record);
  OwnerRecord expected = record;
  if (record.device.attach == Attach::virtioVdpa) {
    if (request.interfaceMac) expected.attachment.port.mac = request.interfaceMac;
    if (request.interfaceMtu != 0) expected.attachment.port.mtu = request.interfaceMtu;
  }
  backend.check(expected, differences);
  node_.changes.check(record, differences);
  return {node_.describe(record, device->worker), differences.take()};
}

std::vector<DeviceCounters> Status::counters(const std::vector<std::string>& ids) {
  std::map<std::string, std::vector<std::string>> byResource;
  const auto devices = node_.table.all();
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
      const auto vswitch = node_.switches.find(resource);
      if (!vswitch) continue;
      for (auto& device : vswitch->readCounters(wanted)) counters.push_back(std::move(device));
    } catch (const std::exception& error) {  // the other resources still have counters
      log::warn("cannot read the counters of {}: {}", resource, error.what());
    }
  }
  return counters;
}

std::vector<DeviceState> Status::deviceStates() const {
  std::vector<DeviceState> states;
  const bool drained = node_.table.closed();
  for (const auto& [id, device] : node_.table.all()) {
    if (!device.offer) continue;
    std::string reason = drained ? kDrained : device.error;
    if (device.record && !reason.empty())
      reason = fmt::format("could not be reclaimed from {} (retrying): {}",
                           describeOwner(device.record->attachment.owner), reason);
    if (reason.empty())
      reason = node_.backends.of(device.offer->device).unhealthy(id, *device.offer);
    // A worker may have lost its hardware. For software ports, the switch was checked above.
    if (reason.empty() && device.worker && device.offer->device.backend != BackendKind::software)
      if (const auto state = device.worker->state(); state.failed()) reason = state.reason;
    states.push_back({id, device.offer->resource, reason.empty(), reason, false, drained});
  }
  return states;
}

std::vector<LiveAttachment> Status::list() const {
  std::vector<LiveAttachment> attachments;
  for (const auto& [id, device] : node_.table.all()) {
    if (device.withheld()) {
      LiveAttachment live{{}, "", "withheld: " + device.error, "", "", 0, "", "", true};
      live.attachment.deviceId = id;
      if (device.offer) live.attachment.resource = device.offer->resource;
      attachments.push_back(std::move(live));
    }
    if (!device.record) continue;
    LiveAttachment live = node_.describe(*device.record, device.worker);
    if (device.record->phase == Phase::detaching)
      live.state = WorkerState{WorkerState::Phase::failed, "detaching: " + device.error}.text();
    live.outlook =
        node_.orphans.outlook(id, live.attachment.owner.key(), DeviceTable::Clock::now());
    attachments.push_back(std::move(live));
  }
  return attachments;
}

unsigned Status::withheldDevices() const {
  const auto devices = node_.table.all();
  return static_cast<unsigned>(std::count_if(
      devices.begin(), devices.end(), [](const auto& entry) { return entry.second.withheld(); }));
}

std::map<std::string, std::string> Status::engineVersions() const {
  std::map<std::string, std::string> versions;
  for (const auto& [resource, vswitch] : node_.switches.all())
    if (const auto process = vswitch->process())
      versions["vdpa-switch of " + resource] = process->status().version;
  for (const auto& [id, device] : node_.table.all())
    if (device.record && device.record->device.backend == BackendKind::dpdk)
      if (const auto process = node_.backends.dpdk.find(id))
        versions["vdpa-pmd of " + id] = process->status().version;
  return versions;
}

unsigned Status::engineDeaths() const {
  unsigned deaths = node_.backends.dpdk.deaths();
  for (const auto& [resource, vswitch] : node_.switches.all()) deaths += vswitch->status().deaths;
  return deaths;
}

}  // namespace vdpa::datapath
