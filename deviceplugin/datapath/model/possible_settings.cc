#include "deviceplugin/datapath/model/possible_settings.h"

#include <fmt/format.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/port_settings.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

// Settings that vdpa-switch lacks: only these values are possible.
PortSettings onlyPossible() {
  PortSettings values;
  values.vlanQos = 0;
  values.vlanProto = VlanProtocol::dot1q;
  values.minTxRate = 0;
  return values;
}

}  // namespace

void refuseSettings(const std::string& deviceId, const std::string& problem) {
  throw RefusedError(Refusal::invalidArgument,
                     fmt::format("cannot set up {}: {}", deviceId, problem));
}

void checkNumbers(const std::string& deviceId, const PortSettings& requested) {
  forEachSetting(
      [&](const Setting& setting, const auto& value) {
        if constexpr (std::is_same_v<decltype(value), const std::optional<unsigned>&>)
          if (value && (*value < setting.low || *value > setting.high))
            refuseSettings(deviceId, fmt::format("{} {}: expected {} to {}", setting.key, *value,
                                                 setting.low, setting.high));
      },
      requested);
}

void refuseSwitchSettings(const std::string& deviceId, const PortSettings& requested) {
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        if (setting.switchOnly && value && *value != Value())
          refuseSettings(deviceId,
                         fmt::format("{} {} is only possible on a software port; remove it "
                                     "from the network's configuration",
                                     setting.key, textOf(*value)));
      },
      requested);
}

PortSettings softwarePort(const std::string& deviceId, const PortSettings& requested,
                          unsigned switchMtu) {
  const PortSettings possible = onlyPossible();
  forEachSetting(
      [&](const Setting& setting, const auto& value, const auto& only) {
        if (value && only && value != only)
          refuseSettings(deviceId, fmt::format("{} {} is not possible on a software port; remove "
                                               "it from the network's configuration",
                                               setting.key, textOf(value)));
      },
      requested, possible);
  PortSettings port = defaultSettings();
  port.mtu = switchMtu;
  overlay(port, requested);
  if (port.linkState == LinkState::automatic)
    port.linkState = LinkState::enable;  // follows nothing
  if (*port.mtu < kMinMtu || *port.mtu > switchMtu)
    refuseSettings(deviceId,
                   fmt::format("mtu {}: expected {} to {}, the MTU of the resource's switch",
                               *port.mtu, kMinMtu, switchMtu));
  checkNumbers(deviceId, requested);
  try {
    checkTogether(requested);
  } catch (const std::invalid_argument& error) {
    refuseSettings(deviceId, error.what());
  }
  return port;
}

}  // namespace vdpa::datapath
