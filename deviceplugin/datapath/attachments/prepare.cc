// Prepares a device before its owner record exists: first with its own attributes, then remade for
// the network if its driver takes a MAC or an MTU only when the device is made.
#include <fmt/core.h>

#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "common/backend.h"
#include "common/log.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/mac_registry.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// The previous owner may have had other attributes.
OfferedDevice Attachments::prepareOwn(const std::string& id, OfferedDevice offer,
                                      Clock::time_point deadline,
                                      const std::function<bool()>& calledOff) {
  try {
    if (mayRemake(offer.device))
      node_.provisioner.remake(id, offer.device, offer.device.attributes, deadline);
  } catch (const RefusedError&) {
    throw;
  } catch (const std::exception& error) {
    throw RefusedError(Refusal::aborted, fmt::format("cannot set up {}: {}", id, error.what()));
  }
  Backend& backend = node_.backends.of(offer.device);
  return backend.prepare(id, std::move(offer), deadline, calledOff);
}

// Plans the hardware's changes and holds the MAC. The device is remade only after every check that
// may refuse the network: remaking takes time and loses the device's state.
void Attachments::prepareFor(OwnerRecord& record, const Settings& settings, MacRegistry::Claim& mac,
                             Clock::time_point deadline, const std::function<bool()>& calledOff) {
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
    node_.changes.plan(record, settings, attributes.mac);
    mac.hold(record.attachment);
    if (!ours) return;
    try {
      node_.provisioner.remake(id, device, attributes, deadline);
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
      Clock::now() + node_.options.timeout, calledOff);
}

}  // namespace vdpa::datapath
