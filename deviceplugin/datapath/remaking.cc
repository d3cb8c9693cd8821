// See the header.
#include "deviceplugin/datapath/remaking.h"

#include <fmt/format.h>

#include "deviceplugin/datapath/refused_error.h"

namespace vdpa {

bool mayRemake(const DeviceConfig& device) {
  return device.backend == Backend::kernel && device.provision &&
         device.attach != Attach::vhostVdpa &&
         (device.rules.macWhenMade || device.rules.mtuWhenMade);
}

VdpaAttributes attributesFor(const DeviceConfig& device, const PortSettings& port, bool macAsked,
                             const VdpaFacts& now) {
  VdpaAttributes attributes = device.attributes;
  if (!mayRemake(device)) return attributes;
  const VdpaRules& rules = device.rules;
  const bool socket = device.attach == Attach::vhostUser;
  // A device that shows none has none: the NIC would have no rule for the pod's frames. A netdev
  // makes its own then.
  const bool needed = macAsked || (socket && now.mac.empty());
  const bool settable = socket && rules.macLater && !now.mac.empty();
  if (rules.macWhenMade && needed && !settable && now.mac != port.mac) attributes.mac = port.mac;
  if (rules.mtuWhenMade && port.mtu != 0 && port.mtu != now.mtu) attributes.mtu = port.mtu;
  return attributes;
}

std::string whyNotRemade(const DeviceConfig& device, const std::string& key) {
  const std::string driver =
      device.rules.driver.empty() ? "its driver" : "its driver " + device.rules.driver;
  if (device.attach == Attach::vhostVdpa)
    return fmt::format(
        "{} takes it when the device is made, but with `attach: vhost-vdpa` its character device "
        "was handed to the pod before: remove {} from the network's configuration, or use `attach: "
        "vhost-user` or `virtio-vdpa` with `provision: vdpa`",
        driver, key);
  return fmt::format(
      "{} takes it when the device is made: use `provision: vdpa`, give it with `vdpa dev add ... "
      "{}`, or remove it from the network's configuration",
      driver, key);
}

void checkMtu(const std::string& deviceId, const DeviceConfig& device, unsigned asked,
              const VdpaFacts& now) {
  if (device.attach != Attach::vhostVdpa || now.mtu == 0 || asked <= now.mtu) return;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format("cannot set up {}: mtu {} is asked for, but vDPA device {} has {}{}", deviceId,
                  asked, device.vdpa, now.mtu,
                  device.rules.mtuWhenMade ? ": " + whyNotRemade(device, "mtu") : ""));
}

}  // namespace vdpa
