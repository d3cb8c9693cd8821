// Decides who gets a device that still has an owner.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "common/backend.h"
#include "common/log.h"
#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;

// Between two checks whether an owner is gone.
constexpr auto kPollInterval = 250ms;

}  // namespace

// Leases the device once it is offered and has no owner; if need be, undoes a previous owner's
// attachment first.
Attachments::Taken Attachments::takeDevice(const Call& call) {
  const auto& [request, deadline, calledOff] = call;
  const std::string& id = request.deviceId;
  auto offer = node_.table.waitOffer(id, deadline, request.owner.key());
  // Refuses settings that the device can't have before anything is done.
  node_.backends.of(offer.device).resolve(id, offer, request.settings);
  for (;;) {
    std::string holder;
    if (auto lease = node_.table.lease(id, deadline)) {
      const auto device = node_.table.find(id);
      if (device->withheld())
        throw RefusedError(Refusal::aborted,
                           fmt::format("cannot attach {}: {}", id, device->error));
      if (!device->record) {
        stopStray(node_.options.paths.workerControl(id));  // if the start could not stop it
        return {std::move(*lease), std::move(offer)};
      }
      if (mayTakeOver(*device->record, request.owner)) {
        undo(*lease);
        continue;  // it may have left the set and been kept only for its owner
      }
      holder = describeOwner(device->record->attachment.owner);
    } else if (!node_.table.find(id)) {
      throw RefusedError(Refusal::notFound, fmt::format("device {} has just left this node", id));
    }
    if (node_.table.waitFree(id, std::min(deadline, Clock::now() + kPollInterval),
                             request.owner.key()))
      continue;
    if (calledOff())
      throw RefusedError(Refusal::aborted, fmt::format("attaching {} was called off", id));
    if (Clock::now() < deadline) continue;
    if (holder.empty())
      throw RefusedError(
          Refusal::aborted,
          fmt::format("device {} is being attached or detached by another call", id));
    throw RefusedError(Refusal::aborted,
                       fmt::format("device {} is held by {}, whose network namespace still exists; "
                                   "it is taken over once that pod is gone",
                                   id, holder));
  }
}

bool Attachments::mayTakeOver(const OwnerRecord& record, const Owner& requester) {
  const Owner& owner = record.attachment.owner;
  const std::string& id = record.attachment.deviceId;
  if (record.phase == Phase::detaching) return true;  // detached already, but not undone completely
  if (namespaceGone(owner.netns, record.netns)) {
    log::warn("taking {} from {}, whose network namespace is gone", id, describeOwner(owner));
    return true;
  }
  // Two interfaces of one container that want the same device: the first one keeps it.
  if (requester.podName.empty() || owner.containerId == requester.containerId) return false;
  // The character device can't be taken from a running pod.
  if (record.device.attach == Attach::vhostVdpa) return false;
  try {
    for (const auto& held : node_.options.listPodDevices()) {
      if (held.deviceId != id || held.resource != record.attachment.resource ||
          held.podNamespace != requester.podNamespace || held.podName != requester.podName)
        continue;
      log::warn("taking {} from {}, since the kubelet gave it to {}/{}", id, describeOwner(owner),
                requester.podNamespace, requester.podName);
      return true;
    }
  } catch (const std::exception& error) {
    log::warn("{}", error.what());
  }
  return false;
}

}  // namespace vdpa::datapath
