// Addresses and routes by rtnetlink.
//
// Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_addr}.h.
#include <fmt/core.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/netlink/ip_prefix.h"
#include "deviceplugin/datapath/netlink/rtnetlink.h"

namespace vdpa::datapath {
namespace {

using netlink::Attribute;
using netlink::Error;
using netlink::Message;
using netlink::Request;

std::vector<uint8_t> octetsOf(const Attribute& attribute) {
  const auto* start = reinterpret_cast<const uint8_t*>(attribute.bytes().data());
  return {start, start + attribute.bytes().size()};
}

// Adds the address if it is one of the netdev with this index.
void takeAddress(std::vector<std::string>& found, const Message& message, unsigned index) {
  const auto body = message.body<ifaddrmsg>();
  if (!body || body->ifa_index != index) return;
  IpPrefix prefix{body->ifa_family, body->ifa_prefixlen, {}};
  for (const Attribute attribute : message.attributes<ifaddrmsg>())
    // With a peer, IFA_ADDRESS is the peer's address and IFA_LOCAL ours.
    if (attribute.type() == IFA_LOCAL || (attribute.type() == IFA_ADDRESS && prefix.bytes.empty()))
      prefix.bytes = octetsOf(attribute);
  found.push_back(prefix.text());
}

struct WantedRoute {
  unsigned index;
  uint32_t table;
  IpPrefix destination, gateway;
};

bool isRoute(const Message& message, const WantedRoute& wanted) {
  const auto body = message.body<rtmsg>();
  if (!body || body->rtm_family != wanted.destination.family ||
      body->rtm_dst_len != wanted.destination.length || body->rtm_type != RTN_UNICAST)
    return false;
  uint32_t index = 0, table = body->rtm_table;
  std::vector<uint8_t> destination(wanted.destination.bytes.size()), gateway;
  for (const Attribute attribute : message.attributes<rtmsg>()) {
    if (attribute.type() == RTA_OIF) index = attribute.number<uint32_t>().value_or(0);
    if (attribute.type() == RTA_TABLE) table = attribute.number<uint32_t>().value_or(table);
    if (attribute.type() == RTA_DST) destination = octetsOf(attribute);
    if (attribute.type() == RTA_GATEWAY) gateway = octetsOf(attribute);
  }
  return index == wanted.index && table == wanted.table &&
         destination == wanted.destination.bytes && gateway == wanted.gateway.bytes;
}

Request addressRequest(uint16_t type, uint16_t flags, unsigned index, const IpPrefix& prefix) {
  Request request(type, flags);
  auto& body = request.body<ifaddrmsg>();
  body.ifa_family = prefix.family;
  body.ifa_prefixlen = prefix.length;
  body.ifa_flags = IFA_F_NODAD;
  body.ifa_index = index;
  request.bytes(IFA_LOCAL, prefix.bytes.data(), prefix.bytes.size());
  request.bytes(IFA_ADDRESS, prefix.bytes.data(), prefix.bytes.size());
  return request;
}

IpPrefix gatewayOf(const PodRoute& route, const IpPrefix& destination) {
  if (route.gateway.empty()) return {};
  IpPrefix via = parsePrefix(route.gateway);
  if (via.family != destination.family)
    throw systemError(EINVAL, "gateway {} doesn't fit the route to {}", route.gateway,
                      route.destination);
  return via;
}

uint32_t tableOf(const PodRoute& route) {
  return route.table.value_or(RT_TABLE_MAIN);
}

Request routeRequest(uint16_t type, uint16_t flags, unsigned index, const PodRoute& route) {
  const IpPrefix prefix = parsePrefix(route.destination).network();
  const IpPrefix via = gatewayOf(route, prefix);
  Request request(type, flags);
  auto& body = request.body<rtmsg>();
  body.rtm_family = prefix.family;
  body.rtm_dst_len = prefix.length;
  body.rtm_table = RT_TABLE_UNSPEC;  // the attribute has room for all numbers
  body.rtm_protocol = RTPROT_STATIC;
  body.rtm_scope = route.scope.value_or(via.bytes.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE);
  body.rtm_type = RTN_UNICAST;
  request.number(RTA_TABLE, tableOf(route));
  if (prefix.length > 0) request.bytes(RTA_DST, prefix.bytes.data(), prefix.bytes.size());
  request.number(RTA_OIF, uint32_t{index});
  if (!via.bytes.empty()) request.bytes(RTA_GATEWAY, via.bytes.data(), via.bytes.size());
  if (route.priority != 0) request.number(RTA_PRIORITY, uint32_t{route.priority});
  if (route.mtu != 0 || route.advmss != 0)
    request.nest(RTA_METRICS, [&] {
      if (route.mtu != 0) request.number(RTAX_MTU, uint32_t{route.mtu});
      if (route.advmss != 0) request.number(RTAX_ADVMSS, uint32_t{route.advmss});
    });
  return request;
}

}  // namespace

void Rtnetlink::addAddress(unsigned index, const std::string& address) {
  auto add = addressRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, parsePrefix(address));
  if (const Error error = socket_.request(add))
    throw netlink::failure(error, "cannot add {}", address);
}

void Rtnetlink::removeAddress(unsigned index, const std::string& address) {
  auto remove = addressRequest(RTM_DELADDR, 0, index, parsePrefix(address));
  const Error error = socket_.request(remove);
  if (error && error.number != EADDRNOTAVAIL)
    throw netlink::failure(error, "cannot remove {}", address);
}

bool Rtnetlink::addRoute(unsigned index, const PodRoute& route) {
  auto add = routeRequest(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, route);
  const Error error = socket_.request(add);
  if (error.number == EEXIST) return hasRoute(index, route);
  if (error)
    throw netlink::failure(error, "cannot add the route to {} {}", route.destination,
                           route.gateway.empty() ? "on the link" : "via " + route.gateway);
  return true;
}

void Rtnetlink::removeRoute(unsigned index, const PodRoute& route) {
  auto remove = routeRequest(RTM_DELROUTE, 0, index, route);
  const Error error = socket_.request(remove);
  if (error && error.number != ESRCH)
    throw netlink::failure(error, "cannot remove the route to {}", route.destination);
}

std::vector<std::string> Rtnetlink::addresses(unsigned index) {
  Request get(RTM_GETADDR);
  get.body<ifaddrmsg>().ifa_family = AF_UNSPEC;
  return socket_.dump<std::vector<std::string>>(
      get, "list the addresses of a network namespace",
      [&](auto& found, const Message& message) { takeAddress(found, message, index); });
}

bool Rtnetlink::hasRoute(unsigned index, const PodRoute& route) {
  const IpPrefix destination = parsePrefix(route.destination).network();
  const WantedRoute wanted{index, tableOf(route), destination, gatewayOf(route, destination)};
  Request get(RTM_GETROUTE);
  get.body<rtmsg>().rtm_family = destination.family;
  return socket_.dump<bool>(
      get, "list the routes of a network namespace",
      [&](bool& found, const Message& message) { found = found || isRoute(message, wanted); });
}

}  // namespace vdpa::datapath
