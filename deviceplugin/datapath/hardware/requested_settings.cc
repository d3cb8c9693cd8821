#include "deviceplugin/datapath/hardware/requested_settings.h"

#include <fmt/core.h>

#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/possible_settings.h"

namespace vdpa::datapath {

PortSettings hardwareSettings(const std::string& deviceId, PortSettings requested,
                              PortSettings port) {
  checkNumbers(deviceId, requested);
  refuseSwitchSettings(deviceId, requested);
  const bool tagged = requested.vlan.value_or(0) != 0;
  if (const unsigned qos = requested.vlanQos.value_or(0); !tagged && qos != 0)
    refuseSettings(deviceId, fmt::format("vlanQoS {} needs a vlan that is not 0", qos));
  if (!tagged && requested.vlanProto == VlanProtocol::dot1ad)
    refuseSettings(deviceId, "vlanProto 802.1ad needs a vlan that is not 0");
  // These three are one tag.
  if (requested.vlan) {
    requested.vlanQos = requested.vlanQos.value_or(0);
    requested.vlanProto = requested.vlanProto.value_or(VlanProtocol::dot1q);
  } else {
    requested.vlanQos.reset();
    requested.vlanProto.reset();
  }
  overlay(port, requested);
  return port;
}

void completeSettings(const std::string& deviceId, PortSettings& port,
                      const std::optional<MacAddress>& mac, unsigned mtu) {
  if (mac && port.mac && port.mac != mac)
    refuseSettings(deviceId, fmt::format("mac {} was requested, but the device has {}",
                                         port.mac->text(), mac->text()));
  if (mtu != 0 && port.mtu > mtu)
    refuseSettings(deviceId,
                   fmt::format("mtu {} was requested, but the device has {}", *port.mtu, mtu));
  if (!port.mac) port.mac = mac;
  if (!port.mtu) port.mtu = mtu != 0 ? mtu : 1500;
}

}  // namespace vdpa::datapath
