#include "common/control_port.h"

#include <fmt/core.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/port_policy.h"
#include "common/port_settings.h"
#include "common/vlan_ranges.h"

namespace vdpa {
namespace {

unsigned checked(const char* name, int64_t number, unsigned low, unsigned high) {
  if (number < low || number > high)
    throw std::runtime_error(fmt::format("{} {}: expected {} to {}", name, number, low, high));
  return static_cast<unsigned>(number);
}

}  // namespace

control::Port controlFromPort(const std::string& id, const PortSettings& settings) {
  control::Port message;
  message.set_id(id);
  message.set_mac(textOf(settings.mac, ""));
  message.set_vlan(static_cast<int32_t>(settings.vlan.value_or(0)));
  if (settings.mtu) message.set_mtu(static_cast<int32_t>(*settings.mtu));
  message.set_link_down(settings.linkState == LinkState::disable);
  message.set_spoof_check(settings.spoofCheck.value_or(false));
  message.set_trust(settings.trust.value_or(false));
  message.set_max_tx_rate(static_cast<int32_t>(settings.maxTxRate.value_or(0)));
  message.set_vlan_trunk(textOf(settings.vlanTrunk, ""));
  message.set_max_rx_rate(static_cast<int32_t>(settings.maxRxRate.value_or(0)));
  message.set_burst(static_cast<int32_t>(settings.burst.value_or(0)));
  return message;
}

void setPolicy(control::Port& message, const PortPolicy& policy) {
  message.set_offloads(policy.offloads);
  message.set_storm_limit(static_cast<int32_t>(policy.stormLimit));
}

PortSettings portFromControl(const control::Port& message, unsigned maxMtu) {
  PortSettings settings = defaultSettings();
  readText("mac", message.mac(), settings.mac.emplace());
  settings.vlan = checked("vlan", message.vlan(), 0, kMaxVlan);
  settings.mtu = message.has_mtu() ? checked("mtu", message.mtu(), kMinMtu, maxMtu) : maxMtu;
  settings.linkState = message.link_down() ? LinkState::disable : LinkState::enable;
  settings.spoofCheck = message.spoof_check();
  settings.trust = message.trust();
  settings.maxTxRate = checked("max_tx_rate", message.max_tx_rate(), 0, kMaxRate);
  if (!message.vlan_trunk().empty())
    readText("vlan_trunk", message.vlan_trunk(), settings.vlanTrunk.emplace());
  settings.maxRxRate = checked("max_rx_rate", message.max_rx_rate(), 0, kMaxRate);
  settings.burst = checked("burst", message.burst(), 0, kMaxBurst);
  checkTogether(settings);
  return settings;
}

PortPolicy policyFromControl(const control::Port& message) {
  return {!message.has_offloads() || message.offloads(),
          checked("storm_limit", message.storm_limit(), 0, kMaxStormLimit)};
}

}  // namespace vdpa
