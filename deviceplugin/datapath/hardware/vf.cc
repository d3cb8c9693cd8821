#include "deviceplugin/datapath/hardware/vf.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/mac_address.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/vf_place.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {
namespace {

using netlink::Attribute;
using netlink::Attributes;
using netlink::Error;
using netlink::Message;
using netlink::Request;

std::optional<bool> reported(uint32_t setting) {
  return setting > 1 ? std::nullopt : std::optional(setting == 1);
}

std::optional<MacAddress> macOf(const ifla_vf_mac& vf) {
  MacAddress::Bytes bytes;
  std::copy_n(vf.mac, bytes.size(), bytes.begin());
  const MacAddress mac(bytes);
  return mac.isZero() ? std::nullopt : std::optional(mac);
}

ifla_vf_mac toVfMac(unsigned vf, const std::optional<MacAddress>& mac) {
  ifla_vf_mac body{};
  body.vf = vf;
  if (mac) std::ranges::copy(mac->bytes(), body.mac);
  return body;
}

void take(VfValues& values, const Attribute& attribute) {
  const auto type = attribute.type();
  if (type == IFLA_VF_MAC) {
    if (const auto mac = attribute.structure<ifla_vf_mac>()) values.mac = macOf(*mac);
  } else if (type == IFLA_VF_RATE) {
    if (const auto rate = attribute.structure<ifla_vf_rate>()) {
      values.minTxRate = rate->min_tx_rate;
      values.maxTxRate = rate->max_tx_rate;
    }
  } else if (type == IFLA_VF_SPOOFCHK) {
    if (const auto check = attribute.structure<ifla_vf_spoofchk>())
      values.spoofCheck = reported(check->setting);
  } else if (type == IFLA_VF_TRUST) {
    if (const auto trust = attribute.structure<ifla_vf_trust>())
      values.trust = reported(trust->setting);
  } else if (type == IFLA_VF_LINK_STATE) {
    if (const auto state = attribute.structure<ifla_vf_link_state>())
      values.linkState = state->link_state == IFLA_VF_LINK_STATE_ENABLE    ? LinkState::enable
                         : state->link_state == IFLA_VF_LINK_STATE_DISABLE ? LinkState::disable
                                                                           : LinkState::automatic;
  } else if (type == IFLA_VF_VLAN_LIST) {
    for (const Attribute inner : attribute.nested()) {
      const auto vlan = inner.structure<ifla_vf_vlan_info>();
      if (inner.type() != IFLA_VF_VLAN_INFO || !vlan) continue;
      values.vlan = vlan->vlan;
      values.vlanQos = vlan->qos;
      values.vlanProto =
          vlan->vlan_proto == htons(ETH_P_8021AD) ? VlanProtocol::dot1ad : VlanProtocol::dot1q;
    }
  }
}

void put(Request& request, unsigned vf, VfPart part, const VfValues& values) {
  switch (part) {
    case VfPart::mac:
      return request.structure(IFLA_VF_MAC, toVfMac(vf, values.mac));
    case VfPart::vlan: {
      const bool stacked = values.vlanProto == VlanProtocol::dot1ad;
      const uint16_t protocol = stacked ? ETH_P_8021AD : ETH_P_8021Q;
      return request.nest(IFLA_VF_VLAN_LIST, [&] {
        request.structure(IFLA_VF_VLAN_INFO,
                          ifla_vf_vlan_info{vf, values.vlan.value_or(0), values.vlanQos.value_or(0),
                                            htons(protocol)});
      });
    }
    case VfPart::rate:
      return request.structure(IFLA_VF_RATE, ifla_vf_rate{vf, values.minTxRate.value_or(0),
                                                          values.maxTxRate.value_or(0)});
    case VfPart::spoofCheck:
      return request.structure(IFLA_VF_SPOOFCHK,
                               ifla_vf_spoofchk{vf, values.spoofCheck == true ? 1u : 0u});
    case VfPart::trust:
      return request.structure(IFLA_VF_TRUST, ifla_vf_trust{vf, values.trust == true ? 1u : 0u});
    case VfPart::linkState:
      return request.structure(
          IFLA_VF_LINK_STATE,
          ifla_vf_link_state{vf, values.linkState == LinkState::enable ? IFLA_VF_LINK_STATE_ENABLE
                                 : values.linkState == LinkState::disable
                                     ? IFLA_VF_LINK_STATE_DISABLE
                                     : IFLA_VF_LINK_STATE_AUTO});
  }
}

}  // namespace

std::optional<VfValues> parseVf(std::span<const std::byte> attributes, unsigned number) {
  std::optional<VfValues> found;
  for (const Attribute list : Attributes(attributes)) {
    if (list.type() != IFLA_VFINFO_LIST) continue;
    for (const Attribute info : list.nested()) {
      if (info.type() != IFLA_VF_INFO) continue;
      VfValues values = unreportedVf();
      bool mine = false;
      for (const Attribute part : info.nested()) {
        if (part.type() == IFLA_VF_MAC)
          if (const auto mac = part.structure<ifla_vf_mac>()) mine = mac->vf == number;
        take(values, part);
      }
      if (mine) found = values;
    }
  }
  return found;
}

std::optional<Vf> findVf(const std::string& sysfs, const std::string& pciAddress) {
  auto place = findVfPlace(sysfs, pciAddress);
  if (!place) return std::nullopt;
  return Vf(*std::move(place), netlink::Socket(NETLINK_ROUTE));
}

std::optional<VfValues> Vf::get() {
  Request request(RTM_GETLINK);
  request.body<ifinfomsg>().ifi_index = static_cast<int>(place_.pfIndex);
  request.number(IFLA_EXT_MASK, uint32_t{RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS});
  std::optional<VfValues> values;
  const Error error = socket_.request(request, [&](const Message& message) {
    values = parseVf(message.attributes<ifinfomsg>().bytes(), place_.number);
  });
  if (error.number == ENODEV) return std::nullopt;
  if (error) throw netlink::failure(error, "cannot read the settings of {}", describe(place_));
  return values;
}

std::vector<Vf::Refused> Vf::set(const VfValues& values, std::span<const VfPart> parts) {
  std::vector<Refused> refused;
  if (parts.empty()) return refused;
  const Error all = send(values, parts);
  if (!all) return refused;
  if (parts.size() == 1) return {{parts.front(), all}};
  for (const VfPart& part : parts)
    if (Error error = send(values, {&part, 1})) refused.push_back({part, std::move(error)});
  return refused;
}

// A VF_INFO for each part: of one with all of them, the kernel would choose the order.
Error Vf::send(const VfValues& values, std::span<const VfPart> parts) {
  Request request(RTM_SETLINK);
  request.body<ifinfomsg>().ifi_index = static_cast<int>(place_.pfIndex);
  request.nest(IFLA_VFINFO_LIST, [&] {
    for (const VfPart part : parts)
      request.nest(IFLA_VF_INFO, [&] { put(request, place_.number, part, values); });
  });
  return socket_.request(request);
}

}  // namespace vdpa::datapath
