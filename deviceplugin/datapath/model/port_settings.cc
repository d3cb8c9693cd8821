#include "deviceplugin/datapath/model/port_settings.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

constexpr unsigned kMaxMbits = 1000000;  // vdpa-switch's

std::string lowerCase(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

bool isMac(const std::string& text) {
  if (text.size() != 17) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i % 3 == 2 ? text[i] != ':' : !std::isxdigit(static_cast<unsigned char>(text[i])))
      return false;
  }
  return true;
}

class Refuser {
 public:
  explicit Refuser(const std::string& deviceId) : deviceId_(deviceId) {}

  template <typename... Args>
  void require(bool condition, fmt::format_string<Args...> format, Args&&... args) const {
    if (condition) return;
    throw RefusedError(Refusal::invalidArgument,
                       fmt::format("cannot set up {}: {}", deviceId_,
                                   fmt::format(format, std::forward<Args>(args)...)));
  }
  void requireAbsent(bool absent, const std::string& setting) const {
    require(absent,
            "{} is not possible on a software port; remove it from the network's configuration",
            setting);
  }

 private:
  const std::string& deviceId_;
};

}  // namespace

std::string checkedMac(const std::string& deviceId, const std::string& text) {
  const Refuser refuser(deviceId);
  const std::string mac = lowerCase(text);
  refuser.require(isMac(mac), "mac '{}': expected six bytes such as 02:00:00:00:00:01", mac);
  refuser.require(mac != "00:00:00:00:00:00", "mac {} is not an address", mac);
  refuser.require(std::stoul(mac.substr(0, 2), nullptr, 16) % 2 == 0,
                  "mac {} is a multicast address; expected a unicast one", mac);
  return mac;
}

PortSettings softwarePort(const std::string& deviceId, const Settings& settings,
                          unsigned switchMtu) {
  const Refuser refuser(deviceId);
  const std::string protocol = lowerCase(settings.vlanProto);
  const std::string link = settings.linkState;
  PortSettings port;
  if (!settings.mac.empty()) port.mac = checkedMac(deviceId, settings.mac);
  port.vlan = settings.vlan.value_or(0);
  refuser.require(port.vlan <= 4094, "vlan {}: expected 0 to 4094", port.vlan);
  refuser.require(protocol.empty() || protocol == "802.1q" || protocol == "802.1ad",
                  "vlanProto '{}': expected 802.1q or 802.1ad", settings.vlanProto);
  refuser.requireAbsent(protocol != "802.1ad", "vlanProto 802.1ad");
  refuser.requireAbsent(settings.vlanQos.value_or(0) == 0,
                        fmt::format("vlanQoS {}", settings.vlanQos.value_or(0)));
  refuser.requireAbsent(settings.minTxRate.value_or(0) == 0,
                        fmt::format("min_tx_rate {}", settings.minTxRate.value_or(0)));
  port.maxTxRate = settings.maxTxRate.value_or(0);
  refuser.require(port.maxTxRate <= kMaxMbits, "max_tx_rate {}: expected 0 to {} Mbit/s",
                  port.maxTxRate, kMaxMbits);
  refuser.require(link.empty() || link == "auto" || link == "enable" || link == "disable",
                  "link_state '{}': expected auto, enable or disable", link);
  port.linkState = link == "disable" ? "disable" : "enable";  // "auto" has nothing to follow
  port.spoofCheck = settings.spoofCheck.value_or(false);
  port.trust = settings.trust.value_or(false);
  port.mtu = settings.mtu ? settings.mtu : switchMtu;
  refuser.require(port.mtu >= 68 && port.mtu <= switchMtu,
                  "mtu {}: expected 68 to {}, the MTU of the resource's switch", port.mtu,
                  switchMtu);
  return port;
}

}  // namespace vdpa::datapath
