#include "deviceplugin/datapath/backends/virtio_vdpa_backend.h"

#include <chrono>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>

#include "common/log.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/pod_netdev.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(20);

PodNetdev netdevOf(const OwnerRecord& record) {
  return {record.netdev, record.attachment.owner.interface, record.attachment.owner.netns};
}

}  // namespace

PortSettings VirtioVdpaBackend::resolve(const std::string& id, const OfferedDevice&,
                                        const PortSettings& settings) const {
  return hardwareSettings(id, settings);
}

OfferedDevice VirtioVdpaBackend::prepare(const std::string& id, OfferedDevice offer,
                                         Clock::time_point deadline,
                                         const std::function<bool()>& calledOff) {
  while (bus_.netdev(offer.device.vdpa).empty()) {
    if (Clock::now() >= deadline || calledOff()) {
      const std::string reason = unhealthy(id, offer);
      throw RefusedError(
          Refusal::aborted,
          fmt::format("cannot attach {} yet: {}", id,
                      !reason.empty() ? reason
                                      : fmt::format("vDPA device {} has no netdev on the host",
                                                    offer.device.vdpa)));
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  return offer;
}

void VirtioVdpaBackend::complete(OwnerRecord& record) const {
  record.netdev = bus_.netdev(record.device.vdpa);
  record.attachment.socket.clear();
}

void VirtioVdpaBackend::start(OwnerRecord& record) {
  Attachment& attachment = record.attachment;
  const auto facts = moveToPod(netdevOf(record), attachment.port.mtu.value_or(0),
                               {attachment.port.mac, record.macAsked});
  if (!record.macAsked) attachment.port.mac = facts.mac;
  completeSettings(attachment.deviceId, attachment.port, facts.mac, facts.mtu);
  setAddresses(record, {});
}

void VirtioVdpaBackend::setAddresses(OwnerRecord& record, const PodAddresses& before) {
  record.routes =
      datapath::setAddresses(netdevOf(record), before, {record.attachment.ips, record.routes});
}

// A pod may have renamed the netdev, changed its address or moved it on, so it is not moved back:
// rebinding the driver removes that netdev wherever it is and makes a new one in its initial state.
void VirtioVdpaBackend::stop(const OwnerRecord& record) {
  const std::string& vdpa = record.device.vdpa;
  if (!bus_.has(vdpa)) return;  // gone, and its netdev with it
  bus_.rebind(vdpa, "virtio_vdpa");
  const auto deadline = Clock::now() + std::chrono::seconds(2);
  std::string now = bus_.netdev(vdpa);
  for (; now.empty() && Clock::now() < deadline; now = bus_.netdev(vdpa))
    std::this_thread::sleep_for(kPollInterval);
  if (now.empty())
    throw std::runtime_error(fmt::format("netdev {} of {} did not come back from {}", record.netdev,
                                         record.attachment.deviceId,
                                         record.attachment.owner.netns));
  // If the record could not be read, the original name is unknown.
  if (!record.netdev.empty() && now != record.netdev) renameOnHost(now, record.netdev);
}

void VirtioVdpaBackend::check(const OwnerRecord& record, Differences& differences) {
  try {
    const Attachment& attachment = record.attachment;
    compareNetdev(netdevOf(record), {attachment.port.mac, attachment.port.mtu.value_or(0)},
                  {attachment.ips, record.routes}, differences);
  } catch (const std::exception& error) {
    differences.add("{}", error.what());
  }
}

std::string VirtioVdpaBackend::unhealthy(const std::string& id, const OfferedDevice& offer) const {
  const DeviceConfig& device = offer.device;
  if (bus_.driver(device.vdpa) == "virtio_vdpa") return "";
  if (device.provision)
    if (auto reason = provisioner_.problem(id); !reason.empty()) return reason;
  if (!bus_.has(device.vdpa)) return fmt::format("vDPA device {} does not exist", device.vdpa);
  return fmt::format("vDPA device {} is not bound to virtio_vdpa", device.vdpa);
}

}  // namespace vdpa::datapath
