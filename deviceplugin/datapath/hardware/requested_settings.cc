#include "deviceplugin/datapath/hardware/requested_settings.h"

#include <fmt/core.h>

#include <cctype>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/port_settings.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

[[noreturn]] void refuse(const std::string& deviceId, const std::string& problem) {
  throw RefusedError(Refusal::invalidArgument,
                     fmt::format("cannot set up {}: {}", deviceId, problem));
}

}  // namespace

PortSettings hardwareSettings(const std::string& deviceId, const Settings& settings,
                              PortSettings port) {
  const auto require = [&](bool well, const std::string& problem) {
    if (!well) refuse(deviceId, problem);
  };
  std::string protocol = settings.vlanProto.empty() ? "802.1q" : settings.vlanProto;
  for (char& c : protocol) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const unsigned qos = settings.vlanQos.value_or(0);
  require(settings.vlan.value_or(0) <= 4094,
          fmt::format("vlan {}: expected 0 to 4094", settings.vlan.value_or(0)));
  require(qos <= 7, fmt::format("vlanQoS {}: expected 0 to 7", qos));
  require(protocol == "802.1q" || protocol == "802.1ad",
          fmt::format("vlanProto '{}': expected 802.1q or 802.1ad", settings.vlanProto));
  const bool tagged = settings.vlan.value_or(0) != 0;
  require(tagged || qos == 0, fmt::format("vlanQoS {} needs a vlan that is not 0", qos));
  require(tagged || protocol == "802.1q", "vlanProto 802.1ad needs a vlan that is not 0");
  if (settings.vlan) {
    port.vlan = *settings.vlan;
    port.vlanQos = qos;
    port.vlanProto = protocol;
  }
  if (settings.spoofCheck) port.spoofCheck = *settings.spoofCheck;
  if (settings.trust) port.trust = *settings.trust;
  if (settings.minTxRate) port.minTxRate = *settings.minTxRate;
  if (settings.maxTxRate) port.maxTxRate = *settings.maxTxRate;
  if (!settings.linkState.empty()) port.linkState = settings.linkState;
  require(port.linkState == "auto" || port.linkState == "enable" || port.linkState == "disable",
          fmt::format("link_state '{}': expected auto, enable or disable", port.linkState));
  if (settings.mtu != 0) port.mtu = settings.mtu;
  require(port.mtu == 0 || (port.mtu >= 68 && port.mtu <= 65535),
          fmt::format("mtu {}: expected 68 to 65535", port.mtu));
  if (!settings.mac.empty()) port.mac = checkedMac(deviceId, settings.mac);
  return port;
}

void completeSettings(const std::string& deviceId, PortSettings& port, const std::string& mac,
                      unsigned mtu) {
  if (!mac.empty() && !port.mac.empty() && port.mac != mac)
    refuse(deviceId, fmt::format("mac {} was requested, but the device has {}", port.mac, mac));
  if (mtu != 0 && port.mtu > mtu)
    refuse(deviceId, fmt::format("mtu {} was requested, but the device has {}", port.mtu, mtu));
  if (port.mac.empty()) port.mac = mac;
  if (port.mtu == 0) port.mtu = mtu != 0 ? mtu : 1500;
}

}  // namespace vdpa::datapath
