#include "deviceplugin/datapath/switch/ports/port_view.h"

#include <cstdint>
#include <memory>

#include "common/port_policy.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/vlan_tag.h"

namespace vdpa::vswitch {

PortView viewOf(const PortSettings& settings, const PortPolicy& policy, PortLimits& limits) {
  PortView view;
  view.linkUp = settings.linkState != LinkState::disable;
  view.spoofCheck = *settings.spoofCheck;
  view.trust = *settings.trust;
  view.vlan = static_cast<uint16_t>(*settings.vlan);
  view.mac = packed(*settings.mac);
  view.maxFrame = static_cast<uint16_t>(*settings.mtu + kEthernetHeader);
  if (!settings.vlanTrunk->empty())
    view.trunk = std::make_shared<const VlanSet>(settings.vlanTrunk->set());
  if (*settings.maxTxRate > 0) {
    limits.send.set(*settings.maxTxRate, view.maxFrame, *settings.burst);
    view.sendLimit = &limits.send;
  }
  if (*settings.maxRxRate > 0) {
    limits.receive.set(*settings.maxRxRate, view.maxFrame, *settings.burst);
    view.receiveLimit = &limits.receive;
  }
  if (policy.stormLimit > 0) {
    limits.storm.setFrames(policy.stormLimit);
    view.stormLimit = &limits.storm;
  }
  return view;
}

VlanSet vlansOf(const PortView& view) {
  VlanSet vlans;
  if (view.trunk) vlans = *view.trunk;
  if (!view.trunk || view.vlan != 0) vlans.set(view.vlan);
  return vlans;
}

}  // namespace vdpa::vswitch
