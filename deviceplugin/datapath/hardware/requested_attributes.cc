#include "deviceplugin/datapath/hardware/requested_attributes.h"

#include <fmt/core.h>

#include <cstdint>
#include <string>

#include "common/backend.h"
#include "common/port_settings.h"
#include "common/vdpa_attributes.h"
#include "common/virtio_features.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

constexpr unsigned kMtuUnshown = 1500;

}  // namespace

bool mayRemake(const DeviceConfig& device) {
  return device.backend == BackendKind::kernel && device.provision &&
         device.attach != Attach::vhostVdpa &&
         (device.rules.macWhenMade || device.rules.mtuWhenMade);
}

bool takesMacOnlyWhenMade(const VdpaRules& rules) {
  return rules.macWhenMade && !rules.macLater;
}

bool mayHaveMtu(const VdpaAttributes& attributes) {
  const uint64_t features = attributes.features.value_or(0);
  return features == 0 || (features & kFeatureMtu) != 0;
}

VdpaAttributes attributesFor(const std::string& deviceId, const DeviceConfig& device,
                             const PortSettings& port, bool macAsked, const VdpaFacts& now) {
  VdpaAttributes attributes = device.attributes;
  if (!mayRemake(device)) return attributes;
  const VdpaRules& rules = device.rules;
  const bool socket = device.attach == Attach::vhostUser;
  // A device that shows no MAC has none: the NIC would have no rule for the pod's frames. A netdev
  // then makes its own.
  const bool needed = macAsked || (socket && !now.mac);
  const bool settable = socket && rules.macLater && now.mac;
  if (rules.macWhenMade && needed && !settable && now.mac != port.mac) attributes.mac = port.mac;
  if (!rules.mtuWhenMade || !port.mtu || port.mtu == now.mtu) return attributes;
  if (!mayHaveMtu(device.attributes))
    throw RefusedError(
        Refusal::invalidArgument,
        fmt::format(
            "cannot set up {}: mtu {} was requested, but vDPA device {} is made without the "
            "feature MTU: add MTU to `vdpa.features` of its resource, or remove mtu from "
            "the network's configuration",
            deviceId, *port.mtu, device.vdpa));
  attributes.mtu = *port.mtu;
  return attributes;
}

VdpaAttributes requiredOf(const VdpaAttributes& wanted, const DeviceConfig& device, bool macAsked,
                          const VdpaFacts& now) {
  VdpaAttributes required = wanted;
  if (!macAsked) required.mac = device.attributes.mac;
  if (required.mtu < now.mtu) required.mtu = device.attributes.mtu;
  return required;
}

std::string whyNotRemade(const DeviceConfig& device, const std::string& key) {
  const std::string driver =
      device.rules.driver.empty() ? "its driver" : "its driver " + device.rules.driver;
  if (device.attach == Attach::vhostVdpa)
    return fmt::format(
        "{} takes it when the device is made, but with `attach: vhost-vdpa` its character device "
        "was handed to the pod already: remove {} from the network's configuration, or use "
        "`attach: "
        "vhost-user` or `virtio-vdpa` with `provision: vdpa`",
        driver, key);
  if (device.provision)
    return fmt::format(
        "{} takes it when the device is made, and it was not made by vdpa-datapath: remove it with "
        "`vdpa dev del {}`, so that it is made as its resource says, or remove {} from the "
        "network's configuration",
        driver, device.vdpa, key);
  return fmt::format(
      "{} takes it when the device is made: use `provision: vdpa`, set it with `vdpa dev add ... "
      "{}`, or remove it from the network's configuration",
      driver, key);
}

void checkMtu(const std::string& deviceId, const DeviceConfig& device, unsigned asked,
              const VdpaFacts& now) {
  if (device.attach != Attach::vhostVdpa || asked <= (now.mtu != 0 ? now.mtu : kMtuUnshown)) return;
  throw RefusedError(
      Refusal::invalidArgument,
      fmt::format("cannot set up {}: mtu {} was requested, but vDPA device {} {}{}", deviceId,
                  asked, device.vdpa,
                  now.mtu != 0 ? fmt::format("has {}", now.mtu) : "shows no MTU",
                  device.rules.mtuWhenMade ? ": " + whyNotRemade(device, "mtu") : ""));
}

}  // namespace vdpa::datapath
