#include "deviceplugin/ctl/bundle/links.h"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/mac_address.h"
#include "common/netlink/attributes.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"

namespace vdpa::ctl {
namespace {

using netlink::Attribute;
using nlohmann::json;

json vfOf(const Attribute& info) {
  json vf = json::object();
  for (const Attribute attribute : info.nested()) {
    switch (attribute.type()) {
      case IFLA_VF_MAC:
        if (const auto mac = attribute.structure<ifla_vf_mac>()) {
          MacAddress::Bytes bytes{};
          for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = mac->mac[i];
          vf["vf"] = mac->vf;
          vf["mac"] = MacAddress(bytes).text();
        }
        break;
      case IFLA_VF_VLAN:
        if (const auto vlan = attribute.structure<ifla_vf_vlan>()) {
          vf["vlan"] = vlan->vlan;
          vf["qos"] = vlan->qos;
        }
        break;
      case IFLA_VF_RATE:
        if (const auto rate = attribute.structure<ifla_vf_rate>()) {
          vf["minTxRate"] = rate->min_tx_rate;
          vf["maxTxRate"] = rate->max_tx_rate;
        }
        break;
      case IFLA_VF_SPOOFCHK:
        if (const auto check = attribute.structure<ifla_vf_spoofchk>())
          vf["spoofchk"] = check->setting;
        break;
      case IFLA_VF_TRUST:
        if (const auto trust = attribute.structure<ifla_vf_trust>()) vf["trust"] = trust->setting;
        break;
      case IFLA_VF_LINK_STATE:
        if (const auto state = attribute.structure<ifla_vf_link_state>())
          vf["linkState"] = state->link_state;
        break;
      default:
        break;
    }
  }
  return vf;
}

}  // namespace

json linkOf(const netlink::Message& message) {
  json link = json::object();
  const auto body = message.body<ifinfomsg>();
  if (!body) return link;
  link["index"] = body->ifi_index;
  link["flags"] = body->ifi_flags;
  for (const Attribute attribute : message.attributes<ifinfomsg>()) {
    switch (attribute.type()) {
      case IFLA_IFNAME:
        link["name"] = attribute.text();
        break;
      case IFLA_MTU:
        link["mtu"] = attribute.number<uint32_t>().value_or(0);
        break;
      case IFLA_ADDRESS:
        if (const auto mac = attribute.mac()) link["mac"] = mac->text();
        break;
      case IFLA_MASTER:
        link["master"] = attribute.number<uint32_t>().value_or(0);
        break;
      case IFLA_OPERSTATE:
        link["operstate"] = attribute.number<uint8_t>().value_or(0);
        break;
      case IFLA_PHYS_PORT_NAME:
        link["physPortName"] = attribute.text();
        break;
      case IFLA_LINKINFO:
        for (const Attribute inner : attribute.nested())
          if (inner.type() == IFLA_INFO_KIND) link["kind"] = inner.text();
        break;
      case IFLA_VFINFO_LIST:
        for (const Attribute info : attribute.nested()) link["vfs"].push_back(vfOf(info));
        break;
      default:
        break;
    }
  }
  return link;
}

json dumpLinks() {
  netlink::Socket socket(NETLINK_ROUTE);
  netlink::Request request(RTM_GETLINK);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  request.number(IFLA_EXT_MASK, uint32_t{RTEXT_FILTER_VF});
  return socket.dump<json>(request, "list the netdevs", [](json& links, const auto& message) {
    links.push_back(linkOf(message));
  });
}

}  // namespace vdpa::ctl
