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
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// The switch sets a port's MAC; a netdev's is set when it is moved into the pod.
bool VfConfiguration::hasMacToSet(const OwnerRecord& record) {
  return record.device.backend != BackendKind::software &&
         record.device.attach != Attach::virtioVdpa && !record.attachment.port.mac.empty();
}

std::string VfConfiguration::ownMac(const OwnerRecord& record) const {
  return access_.vdpaMac ? access_.vdpaMac(record.device.vdpa) : "";
}

// Plans both ways if both exist: only trying shows which one works. Plans neither if the driver
// takes a MAC only when the device is made: mlx5_vdpa's `vdpa dev set` gives the NIC's multi-PF
// switch the previous MAC (mlx5_vdpa_set_attr() in Linux 6.12). A device without VIRTIO_NET_F_MAC
// never shows a MAC, and frames to a MAC that was set may not reach the pod.
void VfConfiguration::planMac(OwnerRecord& record, const std::optional<VfValues>& vf,
                              const std::string& madeWith) const {
  if (!hasMacToSet(record)) return;
  const std::string& mac = record.attachment.port.mac;
  const DeviceConfig& device = record.device;
  if (device.backend == BackendKind::kernel) {
    const std::string own = madeWith.empty() ? ownMac(record) : madeWith;
    if (own == mac) return;
    if (takesMacOnlyWhenMade(device.rules) ||
        (record.macAsked && device.rules.macWhenMade && own.empty()))
      return planOwnMac(record, own);
    // It isn't known of a driver without a name.
    if (access_.setVdpaMac && (device.rules.macLater || device.rules.driver.empty()))
      record.found.vdpaMac = own;
  }
  if (vf && vf->mac != mac) record.found.vfChanges.push_back(VfPart::mac);
}

// A device that shows no MAC may use the chosen one, since no other device has it.
void VfConfiguration::planOwnMac(OwnerRecord& record, const std::string& own) {
  std::string& mac = record.attachment.port.mac;
  if (record.macAsked)
    throw RefusedError(
        Refusal::invalidArgument,
        fmt::format("cannot set up {}: mac {} was requested, but vDPA device {} {}: {}",
                    record.attachment.deviceId, mac, record.device.vdpa,
                    own.empty() ? "shows no MAC" : "has " + own,
                    whyNotRemade(record.device, "mac")));
  if (!own.empty()) mac = own;
}

// Where neither the kernel's vdpa family nor the PF sets it.
void VfConfiguration::keepOwnMac(OwnerRecord& record) const {
  std::string& mac = record.attachment.port.mac;
  if (record.device.backend == BackendKind::dpdk) return;  // such a device does not report its MAC
  const std::string own = access_.setVdpaMac ? access_.vdpaMac(record.device.vdpa) : std::string();
  if (own == mac) return;
  if (!record.macAsked) {
    mac = own;
    return;
  }
  if (own.empty()) return;  // its worker reports the MAC and compares it
  const DeviceConfig& device = record.device;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format(
          "cannot set up {}: mac {} was requested, but the device has {} and can't be given "
          "another: the parent of vDPA device {} can't set it, and {}{}",
          record.attachment.deviceId, mac, own, device.vdpa,
          whyNoVf(access_.find(device.pciAddress)),
          device.rules.macWhenMade ? "; " + whyNotRemade(device, "mac") : ""));
}

bool VfConfiguration::applyVdpaMac(OwnerRecord& record) const {
  if (!record.found.vdpaMac) return false;
  const std::string& mac = record.attachment.port.mac;
  const std::string& vdpa = record.device.vdpa;
  if (!access_.setVdpaMac(vdpa, mac)) {
    record.found.vdpaMac.reset();
    return false;
  }
  const std::string now = access_.vdpaMac(vdpa);
  if (now == mac || now.empty()) {
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
                  record.attachment.deviceId, mac, vdpa, now));
}

// By the plan, or because the PF had given it this MAC before.
bool VfConfiguration::hasVfMac(const OwnerRecord& record) {
  const auto& changes = record.found.vfChanges;
  if (std::find(changes.begin(), changes.end(), VfPart::mac) != changes.end()) return true;
  return !record.found.vf.mac.empty() && record.found.vf.mac == record.attachment.port.mac;
}

void VfConfiguration::restoreVdpaMac(const OwnerRecord& record) const {
  const auto& found = record.found.vdpaMac;
  const std::string& vdpa = record.device.vdpa;
  if (!found || !access_.setVdpaMac) return;
  const std::string now = access_.vdpaMac(vdpa);
  if (now == *found && !now.empty()) return;  // a device that shows no MAC may still have ours
  try {
    if (!access_.setVdpaMac(vdpa, found->empty() ? "00:00:00:00:00:00" : *found))
      throw systemError(EOPNOTSUPP, "cannot set a MAC of vDPA device {}", vdpa);
  } catch (const std::system_error& error) {
    if (now.empty()) return;  // the device is gone
    const auto problem = fmt::format("cannot restore mac {} of {}, vDPA device {}: it has {}: {}",
                                     found->empty() ? "none" : *found, record.attachment.deviceId,
                                     vdpa, now, error.what());
    if (!found->empty()) throw std::runtime_error(problem);
    log::warn("{}", problem);  // the next owner's replaces it
  }
}

}  // namespace vdpa::datapath
