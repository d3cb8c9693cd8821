// Prepares a device before its owner record exists: first with its own attributes, then remade for
// the network if its driver takes a MAC or an MTU only when the device is made.
#include <fmt/core.h>

#include <algorithm>
#include <ctime>
#include <exception>
#include <string>
#include <utility>

#include "common/backend.h"
#include "common/log.h"
#include "common/naming.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/mac_registry.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// The record of an attachment that may begin now: its device is ready, its MAC is held, its
// hardware's changes are planned.
OwnerRecord Attachments::prepare(const Call& call, OfferedDevice offer, MacRegistry::Claim& mac) {
  const AttachRequest& request = call.request;
  const std::string& id = request.deviceId;
  Backend& backend = node_.backends.of(offer.device);
  offer = prepareOwn(call, std::move(offer));

  OwnerRecord record;
  record.bootId = node_.options.bootId;
  record.netns = namespaceAt(request.owner.netns);
  if (record.netns == NamespaceId{})
    log::warn("{}: cannot see the network namespace {}: its end will not be noticed", id,
              request.owner.netns);
  record.socket = offer.socket;
  record.software = offer.software;
  record.device = offer.device;
  record.policy = offer.policy;
  record.routes = request.routes;
  Attachment& attachment = record.attachment;
  attachment.deviceId = id;
  attachment.resource = offer.resource;
  attachment.owner = request.owner;
  attachment.port = backend.resolve(id, offer, request.settings);
  // A device whose MAC can't be set keeps its own.
  record.macAsked = attachment.port.mac.has_value();
  attachment.port.mac = mac.choose(attachment.port.mac);
  prepareFor(record, call, mac);
  attachment.socket = podSocket(id);
  attachment.queuePairs = offer.device.backend == BackendKind::software ? offer.software.queuePairs
                                                                        : offer.device.queuePairs;
  attachment.queuePairs = std::max(1u, attachment.queuePairs);
  attachment.ips = request.ips;
  attachment.created = std::time(nullptr);
  backend.complete(record);
  return record;
}

// The previous owner may have had other attributes.
OfferedDevice Attachments::prepareOwn(const Call& call, OfferedDevice offer) {
  const std::string& id = call.request.deviceId;
  try {
    if (mayRemake(offer.device))
      node_.provisioner.remake(id, offer.device, offer.device.attributes, call.deadline);
  } catch (const RefusedError&) {
    throw;
  } catch (const std::exception& error) {
    throw RefusedError(Refusal::aborted, fmt::format("cannot set up {}: {}", id, error.what()));
  }
  Backend& backend = node_.backends.of(offer.device);
  return backend.prepare(id, std::move(offer), call.deadline, call.calledOff);
}

// Plans the hardware's changes and holds the MAC. The device is remade only after every check that
// may refuse the network: remaking takes time and loses the device's state.
void Attachments::prepareFor(OwnerRecord& record, const Call& call, MacRegistry::Claim& mac) {
  if (record.device.backend == BackendKind::software) return mac.hold(record.attachment);
  const OwnerRecord asked = record;
  const DeviceConfig& device = asked.device;
  const std::string& id = asked.attachment.deviceId;
  const bool ours = mayRemake(device) && node_.provisioner.isOurs(id);
  VdpaAttributes wanted = device.attributes, required = device.attributes;
  if (ours) {
    const auto now = node_.changes.factsOf(device.vdpa);
    wanted = attributesFor(id, device, asked.attachment.port, asked.macAsked, now);
    required = requiredOf(wanted, device, asked.macAsked, now);
  }
  for (const auto& attributes : {wanted, required}) {
    record = asked;
    node_.changes.plan(record, call.request.settings, attributes.mac);
    mac.hold(record.attachment);
    if (!ours) return;
    try {
      node_.provisioner.remake(id, device, attributes, call.deadline);
      break;
    } catch (const RefusedError&) {
      throw;
    } catch (const std::exception& error) {
      if (attributes == required)
        throw RefusedError(Refusal::invalidArgument,
                           fmt::format("cannot set up {}: {}", id, error.what()));
      log::warn("{} continues without optional attributes: {}", id, error.what());
    }
  }
  // The driver may have used up the time until the deadline.
  node_.backends.of(device).prepare(
      id, {record.attachment.resource, record.socket, record.software, record.device},
      Clock::now() + node_.options.timeout, call.calledOff);
}

}  // namespace vdpa::datapath
