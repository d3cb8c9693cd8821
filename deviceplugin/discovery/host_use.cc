#include "deviceplugin/discovery/host_use.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/netlink/attributes.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"

namespace vdpa::plugin {
namespace {

using netlink::Attribute;
using netlink::Message;
using netlink::Request;

unsigned index(const Attribute& attribute) {
  return attribute.number<uint32_t>().value_or(0);
}

std::string kindOf(const Attribute& info) {
  for (const Attribute attribute : info.nested())
    if (attribute.type() == IFLA_INFO_KIND) return attribute.text();
  return "";
}

void takeLink(std::vector<NetworkConfiguration::Link>& links, const Message& message) {
  const auto body = message.body<ifinfomsg>();
  if (!body) return;
  NetworkConfiguration::Link link;
  link.index = static_cast<unsigned>(body->ifi_index);
  bool elsewhere = false;
  for (const Attribute attribute : message.attributes<ifinfomsg>()) {
    if (attribute.type() == IFLA_IFNAME) link.name = attribute.text();
    if (attribute.type() == IFLA_MASTER) link.master = index(attribute);
    if (attribute.type() == IFLA_LINK) link.lower = index(attribute);
    if (attribute.type() == IFLA_LINK_NETNSID) elsewhere = true;  // index of another namespace
    if (attribute.type() == IFLA_LINKINFO) link.kind = kindOf(attribute);
  }
  if (elsewhere) link.lower = 0;
  links.push_back(std::move(link));
}

void takeAddress(std::vector<NetworkConfiguration::Address>& addresses, const Message& message) {
  const auto body = message.body<ifaddrmsg>();
  if (!body) return;
  NetworkConfiguration::Address address;
  address.index = body->ifa_index;
  address.linkLocal = body->ifa_family == AF_INET6 && body->ifa_scope == RT_SCOPE_LINK;
  const size_t size = body->ifa_family == AF_INET ? 4 : 16;
  for (const Attribute attribute : message.attributes<ifaddrmsg>()) {
    const auto type = attribute.type();
    const auto bytes = attribute.bytes();
    std::array<char, INET6_ADDRSTRLEN> shown{};
    if ((type != IFA_ADDRESS && type != IFA_LOCAL) || bytes.size() != size ||
        !::inet_ntop(body->ifa_family, bytes.data(), shown.data(), shown.size()))
      continue;
    if (type == IFA_LOCAL || address.text.empty())
      address.text = fmt::format("{}/{}", shown.data(), body->ifa_prefixlen);
  }
  addresses.push_back(std::move(address));
}

// The netdevs of a default route.
void takeRoute(std::vector<unsigned>& routes, const Message& message) {
  const auto body = message.body<rtmsg>();
  if (!body || body->rtm_dst_len != 0 || body->rtm_type != RTN_UNICAST ||
      (body->rtm_family != AF_INET && body->rtm_family != AF_INET6))
    return;
  for (const Attribute attribute : message.attributes<rtmsg>()) {
    if (attribute.type() == RTA_OIF) routes.push_back(index(attribute));
    if (attribute.type() != RTA_MULTIPATH) continue;
    const auto bytes = attribute.bytes();
    const auto* hop = reinterpret_cast<const rtnexthop*>(bytes.data());
    for (int left = static_cast<int>(bytes.size()); RTNH_OK(hop, left);) {
      routes.push_back(static_cast<unsigned>(hop->rtnh_ifindex));
      left -= static_cast<int>(RTNH_ALIGN(hop->rtnh_len));
      hop = RTNH_NEXT(hop);
    }
  }
}

}  // namespace

NetworkConfiguration dumpNetwork() {
  netlink::Socket socket(NETLINK_ROUTE);
  const auto dump = [&]<typename List>(uint16_t type, List& collected, auto take) {
    Request request(type);
    request.body<ifinfomsg>();  // the largest of the three, all zeros
    collected = socket.dump<List>(request, "read the network configuration", take);
  };
  NetworkConfiguration network;
  dump(RTM_GETLINK, network.links, takeLink);
  dump(RTM_GETADDR, network.addresses, takeAddress);
  dump(RTM_GETROUTE, network.defaultRoutes, takeRoute);
  return network;
}

std::map<std::string, std::string> findHostUse(const NetworkConfiguration& network) {
  std::map<unsigned, const NetworkConfiguration::Link*> links;
  for (const auto& link : network.links) links[link.index] = &link;
  std::map<unsigned, std::string> uses;
  for (const auto& address : network.addresses)
    if (!address.linkLocal) uses.emplace(address.index, "the address " + address.text);
  for (const unsigned index : network.defaultRoutes) uses[index] = "the default route";

  // From each netdev in use down to all netdevs below it.
  std::map<std::string, std::string> result;
  std::multimap<unsigned, unsigned> below;  // a bond or bridge to its members
  for (const auto& link : network.links)
    if (link.master != 0) below.emplace(link.master, link.index);
  for (const auto& [top, why] : uses) {
    std::set<unsigned> seen;
    std::vector<unsigned> reached{top};
    while (!reached.empty()) {
      const unsigned index = reached.back();
      reached.pop_back();
      const auto link = links.find(index);
      if (link == links.end() || !seen.insert(index).second) continue;
      const auto& name = link->second->name;
      if (index == top) {
        result[name] = why;
      } else if (const auto above = links.find(top); above != links.end()) {
        const auto& kind = above->second->kind;
        result.emplace(name, fmt::format("it is below {}{}{}, which has {}", kind,
                                         kind.empty() ? "" : " ", above->second->name, why));
      }
      if (link->second->lower != 0) reached.push_back(link->second->lower);
      const auto [first, last] = below.equal_range(index);
      for (auto entry = first; entry != last; ++entry) reached.push_back(entry->second);
    }
  }
  return result;
}

}  // namespace vdpa::plugin
