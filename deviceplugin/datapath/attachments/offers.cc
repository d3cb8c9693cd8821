#include "deviceplugin/datapath/attachments/offers.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/pod_files/device_directory.h"

namespace vdpa::datapath {

void Offers::setDevices(const std::vector<Resource>& resources) {
  checkDeviceSet(resources);
  checkSocketPaths(resources, node_.options.paths);
  Lock setting(node_.settingDevices);
  std::map<std::string, OfferedDevice> offers;
  Provisioner::Devices provisioned;
  for (const auto& resource : resources) {
    for (const auto& [id, device] : resource.devices) {
      offers[id] = {resource.name, resource.socket, resource.software, device, resource.policy};
      if (device.provision) provisioned[id] = device;
    }
  }
  if (node_.table.closed()) {  // so that they are shown with the reason
    node_.table.setOffers(offers);
    return;
  }
  node_.switches.offer(resources);
  {
    Lock directories(node_.deviceDirectories);
    for (const auto& [id, offer] : offers) DeviceDirectory(node_.options.paths, id).ensure();
    for (const auto& id : node_.table.setOffers(offers))
      DeviceDirectory(node_.options.paths, id).remove();
    removeDirectoriesExcept(node_.options.paths, [this](const std::string& id) {
      return node_.table.find(id).has_value();
    });
  }
  node_.provisioner.want(std::move(provisioned));
  log::info("{} devices of {} resources", offers.size(), resources.size());
}

void Offers::retryFailed() {
  bool well = false;
  if (node_.table.closed()) return;
  for (const auto& [id, device] : node_.table.all()) {
    if (!device.offer || device.owned()) continue;
    if (node_.backends.of(device.offer->device).due(id)) well = retryFailed(id) || well;
  }
  if (well) node_.onHealth();
}

// With the lease: otherwise an Attach could start a second process for the device, or find it open.
bool Offers::retryFailed(const std::string& id) {
  const auto lease = node_.table.lease(id, DeviceTable::Clock::now());
  const auto device = node_.table.find(id);
  if (!lease || !device || !device->offer || device->owned()) return false;
  return node_.backends.of(device->offer->device).retry(id, *device->offer);
}

}  // namespace vdpa::datapath
