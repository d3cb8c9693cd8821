// Sets the MAC of an attachment's hardware: on its vDPA device by the kernel's vdpa family, else on
// its VF through the PF; else the device keeps its own.
#include <algorithm>
#include <cerrno>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "common/backend.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// The switch sets a port's MAC; a netdev's is set when it is moved into the pod.
bool VfConfiguration::hasMacToSet(const OwnerRecord& record) {
  return record.device.backend != BackendKind::software &&
         record.device.attach != Attach::virtioVdpa && record.attachment.port.mac;
}

std::optional<MacAddress> VfConfiguration::ownMac(const OwnerRecord& record) const {
  return access_.vdpaMac ? access_.vdpaMac(record.device.vdpa) : std::nullopt;
}

// Plans both ways if both exist: only trying shows which one works. Plans neither if the driver
// takes a MAC only when the device is made: mlx5_vdpa's `vdpa dev set` gives the NIC's multi-PF
// switch the previous MAC (mlx5_vdpa_set_attr() in Linux 6.12). A device without VIRTIO_NET_F_MAC
// never shows a MAC, and frames to a MAC that was set may not reach the pod.
void VfConfiguration::planMac(OwnerRecord& record, const std::optional<VfValues>& vf,
                              const std::optional<MacAddress>& madeWith) const {
  if (!hasMacToSet(record)) return;
  const auto& mac = record.attachment.port.mac;
  const DeviceConfig& device = record.device;
  if (device.backend == BackendKind::kernel) {
    const auto own = madeWith ? madeWith : ownMac(record);
    if (own == mac) return;
    if (takesMacOnlyWhenMade(device.rules) || (record.macAsked && device.rules.macWhenMade && !own))
      return planOwnMac(record, own);
    // It isn't known of a driver without a name.
    if (access_.setVdpaMac && (device.rules.macLater || device.rules.driver.empty()))
      record.found.vdpaMac = own.value_or(MacAddress());
  }
  if (vf && vf->mac != mac) record.found.vfChanges.push_back(VfPart::mac);
}

// A device that shows no MAC may use the chosen one, since no other device has it.
void VfConfiguration::planOwnMac(OwnerRecord& record, const std::optional<MacAddress>& own) {
  auto& mac = record.attachment.port.mac;
  if (record.macAsked)
    throw RefusedError(
        Refusal::invalidArgument,
        fmt::format("cannot set up {}: mac {} was requested, but vDPA device {} {}: {}",
                    record.attachment.deviceId, textOf(mac), record.device.vdpa,
                    own ? "has " + own->text() : "shows no MAC",
                    whyNotRemade(record.device, "mac")));
  if (own) mac = own;
}

// Where neither the kernel's vdpa family nor the PF sets it.
void VfConfiguration::keepOwnMac(OwnerRecord& record) const {
  auto& mac = record.attachment.port.mac;
  if (record.device.backend == BackendKind::dpdk) return;  // such a device does not report its MAC
  const auto own = access_.setVdpaMac ? access_.vdpaMac(record.device.vdpa) : std::nullopt;
  if (own == mac) return;
  if (!record.macAsked) {
    mac = own;
    return;
  }
  if (!own) return;  // its worker reports the MAC and compares it
  const DeviceConfig& device = record.device;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format(
          "cannot set up {}: mac {} was requested, but the device has {} and can't be given "
          "another: the parent of vDPA device {} can't set it, and {}{}",
          record.attachment.deviceId, textOf(mac), own->text(), device.vdpa,
          whyNoVf(access_.find(device.pciAddress)),
          device.rules.macWhenMade ? "; " + whyNotRemade(device, "mac") : ""));
}

bool VfConfiguration::applyVdpaMac(OwnerRecord& record) const {
  if (!record.found.vdpaMac) return false;
  const MacAddress mac = *record.attachment.port.mac;
  const std::string& vdpa = record.device.vdpa;
  if (!access_.setVdpaMac(vdpa, mac)) {
    record.found.vdpaMac.reset();
    return false;
  }
  const auto now = access_.vdpaMac(vdpa);
  if (!now || now == mac) {
    std::erase(record.found.vfChanges, VfPart::mac);
    return true;
  }
  if (!record.macAsked) {
    record.found.vdpaMac.reset();
    return false;
  }
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format("cannot set up {}: mac {} was set, but vDPA device {} has {}; its driver "
                  "ignores it: remove it from the network's configuration",
                  record.attachment.deviceId, mac.text(), vdpa, now->text()));
}

// By the plan, or because the PF had given it this MAC before.
bool VfConfiguration::hasVfMac(const OwnerRecord& record) {
  const auto& changes = record.found.vfChanges;
  if (std::find(changes.begin(), changes.end(), VfPart::mac) != changes.end()) return true;
  return record.found.vf.mac && record.found.vf.mac == record.attachment.port.mac;
}

void VfConfiguration::restoreVdpaMac(const OwnerRecord& record) const {
  const auto& found = record.found.vdpaMac;
  const std::string& vdpa = record.device.vdpa;
  if (!found || !access_.setVdpaMac) return;
  const auto now = access_.vdpaMac(vdpa);
  if (now && now == *found) return;  // a device that shows no MAC may still have ours
  try {
    if (!access_.setVdpaMac(vdpa, *found))
      throw systemError(EOPNOTSUPP, "cannot set a MAC of vDPA device {}", vdpa);
  } catch (const std::system_error& error) {
    if (!now) return;  // the device is gone
    const auto problem = fmt::format("cannot restore mac {} of {}, vDPA device {}: it has {}: {}",
                                     found->isZero() ? "none" : found->text(),
                                     record.attachment.deviceId, vdpa, now->text(), error.what());
    if (!found->isZero()) throw std::runtime_error(problem);
    log::warn("{}", problem);  // the next owner's replaces it
  }
}

}  // namespace vdpa::datapath
