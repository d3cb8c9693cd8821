// See the header.
#include "deviceplugin/datapath/hardware_settings.h"

#include <fmt/format.h>

#include "deviceplugin/datapath/refused_error.h"
#include "deviceplugin/datapath/software_port.h"

namespace vdpa {
namespace {

[[noreturn]] void refuse(const std::string& deviceId, const std::string& problem) {
  throw RefusedError(Refusal::invalidArgument,
                     fmt::format("cannot set up {}: {}", deviceId, problem));
}

}  // namespace

PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings) {
  const auto absent = [&](bool absent, const std::string& setting) {
    if (!absent)
      refuse(deviceId, setting +
                           " is not possible on this device; remove it from the network's "
                           "configuration, or set it on the PF");
  };
  absent(settings.vlan.value_or(0) == 0, fmt::format("vlan {}", settings.vlan.value_or(0)));
  absent(settings.vlanQos.value_or(0) == 0,
         fmt::format("vlanQoS {}", settings.vlanQos.value_or(0)));
  absent(settings.vlanProto.empty() || settings.vlanProto == "802.1q",
         "vlanProto " + settings.vlanProto);
  absent(!settings.spoofCheck.value_or(false), "spoofchk on");
  absent(!settings.trust.value_or(false), "trust on");
  absent(settings.minTxRate.value_or(0) == 0,
         fmt::format("min_tx_rate {}", settings.minTxRate.value_or(0)));
  absent(settings.maxTxRate.value_or(0) == 0,
         fmt::format("max_tx_rate {}", settings.maxTxRate.value_or(0)));
  absent(
      settings.linkState.empty() || settings.linkState == "auto" || settings.linkState == "enable",
      "link_state " + settings.linkState);
  PortSettings port;
  port.mtu = settings.mtu;
  if (port.mtu != 0 && (port.mtu < 68 || port.mtu > 65535))
    refuse(deviceId, fmt::format("mtu {}: expected 68 to 65535", port.mtu));
  if (!settings.mac.empty()) port.mac = checkedMac(deviceId, settings.mac);
  return port;
}

void completeSettings(const std::string& deviceId, PortSettings& port, const std::string& mac,
                      unsigned mtu) {
  if (!mac.empty() && !port.mac.empty() && port.mac != mac)
    refuse(deviceId, fmt::format("mac {} is asked for, but the device has {}", port.mac, mac));
  if (mtu != 0 && port.mtu > mtu)
    refuse(deviceId, fmt::format("mtu {} is asked for, but the device has {}", port.mtu, mtu));
  if (port.mac.empty()) port.mac = mac;
  if (port.mtu == 0) port.mtu = mtu != 0 ? mtu : 1500;
}

}  // namespace vdpa
