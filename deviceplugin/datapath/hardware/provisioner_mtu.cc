// The MTU of a vDPA device's parent: learned before a device is made with another one, and
// restored.
//
// Source: mlx5_vdpa_dev_add() of drivers/vdpa/mlx5/net/mlx5_vnet.c in Linux 6.12, which sets the
// MTU of the function by mlx5_modify_nic_vport_mtu() and leaves it so.
#include "common/log.h"
#include "common/virtio_features.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

// Only a device with VIRTIO_NET_F_MTU reports it; if there is none, one is made for this. As long
// as no MTU is recorded as found, we have not changed it.
void Provisioner::learnMtu(const DeviceConfig& device, Record& record) {
  unsigned mtu = bus_.has(device.vdpa) ? options_.mtu(device.vdpa) : 0;
  if (mtu == 0) {
    Record shows = record;
    shows.attributes.mtu = 0;
    if (shows.attributes.features.value_or(0) != 0) *shows.attributes.features |= kFeatureMtu;
    clearWay(device, shows);
    options_.add(device.vdpa, device.managementDevice, shows.attributes);
    mtu = options_.mtu(device.vdpa);
  }
  if (mtu == 0)
    log::warn("{}: the kernel reports no MTU of vDPA device {}: MTU {} of {} will stay",
              record.device, device.vdpa, record.attributes.mtu, device.managementDevice);
  record.foundMtu = mtu;
}

// Makes a device of its parent for this, which has none at that time.
void Provisioner::restoreMtu(const Record& record) const {
  VdpaAttributes attributes;
  attributes.mtu = *record.foundMtu;
  options_.add(record.vdpa, record.managementDevice, attributes);
  options_.remove(record.vdpa);
}

// False if the function is gone or has another driver now: then its MTU is as its driver set it.
bool Provisioner::hasParent(const Record& record) const {
  if (record.pciAddress.empty()) return true;
  const std::string& driver = record.pciDriver.empty() ? record.foundDriver : record.pciDriver;
  return linkName(function(record.pciAddress) + "/driver") == driver;
}

}  // namespace vdpa::datapath
