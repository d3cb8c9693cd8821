#include "deviceplugin/datapath/api/messages.h"

#include <fmt/core.h>
#include <google/protobuf/unknown_field_set.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/attachment_limits.h"
#include "common/backend.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/device_state.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/possible_settings.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

Owner fromMessage(const datapath::v1::Owner& message) {
  return {message.container_id(),  message.interface(), message.netns(),  message.network(),
          message.pod_namespace(), message.pod_name(),  message.pod_uid()};
}

DeviceConfig fromMessage(const datapath::v1::Device& message) {
  DeviceConfig device;
  const std::string& attach = message.attach();
  if (attach == nameOf(Attach::vhostVdpa))
    device.attach = Attach::vhostVdpa;
  else if (attach == nameOf(Attach::virtioVdpa))
    device.attach = Attach::virtioVdpa;
  else if (!attach.empty() && attach != nameOf(Attach::vhostUser))
    throw RefusedError(Refusal::invalidArgument,
                       fmt::format("device {}: attach '{}' is unknown; is vdpa-datapath "
                                   "older than vdpa-device-plugin?",
                                   message.id(), attach));
  if (message.has_numa_node()) device.numaNode = message.numa_node();
  device.queuePairs = message.queue_pairs();
  if (message.has_kernel()) {
    const auto& kernel = message.kernel();
    device.backend = BackendKind::kernel;
    device.vdpa = kernel.vdpa();
    device.managementDevice = kernel.management_device();
    device.provision = kernel.provision();
    device.pciAddress = kernel.pci_address();
    device.pciDriver = kernel.pci_driver();
    const auto& attributes = kernel.attributes();
    if (attributes.has_queue_pairs()) device.attributes.queuePairs = attributes.queue_pairs();
    if (attributes.has_features()) device.attributes.features = attributes.features();
    device.attributes.mtu = attributes.mtu();
    const auto& parent = kernel.parent();
    device.rules = {parent.driver(), parent.mac_when_made(), parent.mtu_when_made(),
                    parent.mac_later()};
  } else if (message.has_dpdk()) {
    const auto& dpdk = message.dpdk();
    device.backend = BackendKind::dpdk;
    device.pciAddress = dpdk.pci_address();
    device.dpdkDriver = dpdk.driver();
    device.devargs = dpdk.devargs();
  }
  return device;
}

void requireAtMost(size_t most, int count, const char* what) {
  if (static_cast<size_t>(count) > most)
    throw RefusedError(Refusal::invalidArgument,
                       fmt::format("{} {}: at most {} are possible", count, what, most));
}

// The backend is a field of a later release: without this check the device would be taken for a
// port of a switch. The answer reports the field (Receiver).
bool isOfUnknownKind(const datapath::v1::Device& device, const datapath::v1::Resource& resource) {
  return device.behind_case() == datapath::v1::Device::BEHIND_NOT_SET && !resource.has_software() &&
         !device.GetReflection()->GetUnknownFields(device).empty();
}

template <typename Message>
std::vector<std::string> ipsOf(const Message& message) {
  requireAtMost(kMaxAddresses, message.ips_size(), "ips");
  return {message.ips().begin(), message.ips().end()};
}

template <typename Message>
AttachRequest requestOf(const Message& message) {
  return {fromMessage(message.owner()),
          message.device_id(),
          settingsFromMessage(
              message.settings(),
              [&](const std::string& problem) { refuseSettings(message.device_id(), problem); }),
          ipsOf(message),
          {}};
}

template <typename Message>
std::vector<PodRoute> routesOf(const Message& message) {
  requireAtMost(kMaxRoutes, message.routes_size(), "routes");
  std::vector<PodRoute> routes;
  for (const auto& from : message.routes()) {
    PodRoute route{from.destination(), from.gateway(), from.mtu(),  from.advmss(),
                   from.priority(),    std::nullopt,   std::nullopt};
    if (from.has_table()) route.table = from.table();
    if (from.has_scope()) route.scope = static_cast<uint8_t>(from.scope());
    routes.push_back(std::move(route));
  }
  return routes;
}

}  // namespace

std::vector<Resource> fromMessage(const datapath::v1::SetDevicesRequest& message) {
  std::vector<Resource> resources;
  for (const auto& from : message.resources()) {
    const auto& socket = from.socket();
    const auto& software = from.software();
    Resource resource;
    resource.name = from.name();
    resource.socket = {socket.uid(), socket.gid(), socket.mode(), socket.selinux_label()};
    if (from.has_software())
      resource.software = {software.queue_pairs(),
                           software.mtu(),
                           {software.uplink_netdev(), software.uplink_xdp(), software.uplink_pci()},
                           software.cores()};
    if (software.has_offloads()) resource.policy.offloads = software.offloads();
    if (software.has_storm_limit()) resource.policy.stormLimit = software.storm_limit();
    for (const auto& device : from.devices()) {
      if (isOfUnknownKind(device, from)) continue;
      if (!resource.devices.emplace(device.id(), fromMessage(device)).second)
        throw RefusedError(
            Refusal::invalidArgument,
            fmt::format("resource {}: device {} is given twice", from.name(), device.id()));
    }
    resources.push_back(std::move(resource));
  }
  return resources;
}

AttachRequest fromMessage(const datapath::v1::AttachRequest& message) {
  AttachRequest request = requestOf(message);
  request.routes = routesOf(message);
  request.addressesFollow = message.addresses_follow();
  return request;
}

CheckRequest fromMessage(const datapath::v1::CheckRequest& message) {
  CheckRequest request{requestOf(message), std::nullopt, message.interface_mtu()};
  if (const std::string& mac = message.interface_mac(); !mac.empty()) {
    request.interfaceMac = MacAddress::parse(mac);
    if (!request.interfaceMac)
      throw RefusedError(Refusal::invalidArgument,
                         fmt::format("cannot check {}: interface_mac '{}': expected six bytes such "
                                     "as 02:00:00:00:00:01",
                                     message.device_id(), mac));
  }
  return request;
}

PodAddresses fromMessage(const datapath::v1::SetAddressesRequest& message) {
  return {ipsOf(message), routesOf(message)};
}

datapath::v1::DeviceState toMessage(const DeviceState& state) {
  datapath::v1::DeviceState message;
  message.set_id(state.id);
  message.set_resource(state.resource);
  message.set_healthy(state.healthy);
  message.set_reason(state.reason);
  message.set_removed(state.removed);
  message.set_drained(state.drained);
  return message;
}

datapath::v1::Attachment toMessage(const LiveAttachment& live) {
  const Attachment& attachment = live.attachment;
  datapath::v1::Attachment message;
  message.set_device_id(attachment.deviceId);
  message.set_resource(attachment.resource);
  message.set_backend(live.backend);
  auto& owner = *message.mutable_owner();
  owner.set_container_id(attachment.owner.containerId);
  owner.set_interface(attachment.owner.interface);
  owner.set_netns(attachment.owner.netns);
  owner.set_network(attachment.owner.network);
  owner.set_pod_namespace(attachment.owner.podNamespace);
  owner.set_pod_name(attachment.owner.podName);
  owner.set_pod_uid(attachment.owner.podUid);
  fillMessage(*message.mutable_settings(), attachment.port);
  message.set_socket(attachment.socket);
  message.set_queue_pairs(attachment.queuePairs);
  message.set_queue_size(attachment.queueSize);
  message.mutable_ips()->Assign(attachment.ips.begin(), attachment.ips.end());
  message.set_created(attachment.created);
  message.set_state(live.state);
  message.set_outlook(live.outlook);
  message.set_vdpa(live.vdpa);
  message.set_virtio(live.virtio);
  message.set_worker_version(live.workerVersion);
  return message;
}

datapath::v1::DeviceStats toMessage(const DeviceCounters& counters) {
  datapath::v1::DeviceStats message;
  message.set_id(counters.id);
  message.set_rx_packets(counters.rxPackets);
  message.set_rx_bytes(counters.rxBytes);
  message.set_tx_packets(counters.txPackets);
  message.set_tx_bytes(counters.txBytes);
  message.mutable_drops()->insert(counters.drops.begin(), counters.drops.end());
  return message;
}

}  // namespace vdpa::datapath
