// The MAC of an attachment's hardware: of its vDPA device by the kernel's vdpa family, else of its
// VF through the PF, else its own.
#include <algorithm>

#include "common/errors.h"
#include "common/log.h"
#include "deviceplugin/datapath/hardware_changes.h"
#include "deviceplugin/datapath/refused_error.h"

namespace vdpa {
namespace {

// A port's is its switch's business; a netdev's is set when it is moved into the pod.
bool hasMacToSet(const OwnerRecord& record) {
  return record.device.backend != Backend::software && record.device.attach != Attach::virtioVdpa &&
         !record.attachment.port.mac.empty();
}

}  // namespace

// Both ways, if there are both: which one works shows when it is tried.
void HardwareChanges::planMac(OwnerRecord& record, const std::optional<Vf>& vf) const {
  if (!hasMacToSet(record)) return;
  const std::string& mac = record.attachment.port.mac;
  if (record.device.backend == Backend::kernel && access_.setVdpaMac) {
    const std::string own = access_.vdpaMac(record.device.vdpa);
    if (own == mac) return;
    record.found.vdpaMac = own;
  }
  if (vf && vf->values && vf->values->mac != mac) record.found.vfChanges.push_back(VfPart::mac);
}

// By the kernel's vdpa family where the device's parent supports it, else through the PF; else the
// device's own will have to do.
void HardwareChanges::applyMac(OwnerRecord& record) const {
  if (!hasMacToSet(record)) return;
  std::string& mac = record.attachment.port.mac;
  const bool set = applyVdpaMac(record);
  checkMacSeen(record);
  if (set || applyVfMac(record)) return;
  if (record.device.backend == Backend::dpdk) return;  // such a device tells nobody what it has
  const std::string own = access_.setVdpaMac ? access_.vdpaMac(record.device.vdpa) : std::string();
  if (own == mac) return;
  if (!record.macAsked) {
    mac = own;
    return;
  }
  if (own.empty()) return;  // its worker tells, and compares
  const DeviceConfig& device = record.device;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format(
          "cannot set up {}: mac {} is asked for, but the device has {}, and can't be given "
          "another: the parent of vDPA device {} can't set it, and {}{}",
          record.attachment.deviceId, mac, own, device.vdpa,
          whyNoVf(access_.find(device.pciAddress)),
          device.rules.macWhenMade ? "; " + whyNotRemade(device, "mac") : ""));
}

bool HardwareChanges::applyVdpaMac(OwnerRecord& record) const {
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

// A device without VIRTIO_NET_F_MAC shows none whatever was set, and frames to one that a pod
// counts on may not reach it. Where the driver takes one when the device is made, it can be had.
void HardwareChanges::checkMacSeen(const OwnerRecord& record) const {
  const DeviceConfig& device = record.device;
  if (!record.macAsked || device.backend != Backend::kernel || !device.rules.macWhenMade ||
      !access_.vdpaMac || !access_.vdpaMac(device.vdpa).empty())
    return;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format("cannot set up {}: mac {} is asked for, but vDPA device {} shows no MAC: {}",
                  record.attachment.deviceId, record.attachment.port.mac, device.vdpa,
                  whyNotRemade(device, "mac")));
}

bool HardwareChanges::applyVfMac(OwnerRecord& record) const {
  auto& changes = record.found.vfChanges;
  if (std::find(changes.begin(), changes.end(), VfPart::mac) == changes.end()) {
    // The PF has given it this one already.
    return !record.found.vf.mac.empty() && record.found.vf.mac == record.attachment.port.mac;
  }
  const auto vf = access_.find(record.device.pciAddress);
  try {
    if (!vf || !vf->values)
      throw RefusedError(Refusal::aborted, fmt::format("cannot set up {}: its PF has gone",
                                                       record.attachment.deviceId));
    write(record, *vf, VfPart::mac, valuesOf(record.attachment.port));
    return true;
  } catch (const RefusedError& error) {
    if (record.macAsked) throw;
    spdlog::info("{} keeps its own MAC: {}", record.attachment.deviceId, error.what());
    std::erase(changes, VfPart::mac);
    return false;
  }
}

void HardwareChanges::restoreVdpaMac(const OwnerRecord& record) const {
  const auto& found = record.found.vdpaMac;
  const std::string& vdpa = record.device.vdpa;
  if (!found || !access_.setVdpaMac) return;
  const std::string now = access_.vdpaMac(vdpa);
  if (now == *found && !now.empty()) return;  // one that shows none may have it still
  try {
    if (!access_.setVdpaMac(vdpa, found->empty() ? "00:00:00:00:00:00" : *found))
      throw systemError(EOPNOTSUPP, "cannot set a MAC of vDPA device {}", vdpa);
  } catch (const std::system_error& error) {
    if (now.empty()) return;  // the device has gone
    const auto problem = fmt::format("cannot put back mac {} of {}, vDPA device {}: it has {}: {}",
                                     found->empty() ? "none" : *found, record.attachment.deviceId,
                                     vdpa, now, error.what());
    if (!found->empty()) throw std::runtime_error(problem);
    spdlog::warn("{}", problem);  // the next owner's replaces it
  }
}

}  // namespace vdpa
