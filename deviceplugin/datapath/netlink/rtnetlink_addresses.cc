// Addresses and routes by rtnetlink.
//
// Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_addr}.h.
#include <fmt/core.h>
#include <linux/if_addr.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/netlink/rtnetlink.h"
#include "deviceplugin/datapath/netlink/rtnetlink_message.h"

namespace vdpa::datapath {
namespace {

struct AddressDump {
  unsigned index;
  std::vector<std::string> found;
};

int collectAddress(const nlmsghdr* message, void* data) {
  auto& dump = *static_cast<AddressDump*>(data);
  const auto* body = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  if (body->ifa_index != dump.index) return MNL_CB_OK;
  IpPrefix prefix{body->ifa_family, body->ifa_prefixlen, {}};
  forEachAttribute(message, sizeof *body, [&](const nlattr* attribute) {
    // With a peer, IFA_ADDRESS is the peer's address and IFA_LOCAL ours.
    const uint16_t type = mnl_attr_get_type(attribute);
    if (type != IFA_LOCAL && (type != IFA_ADDRESS || !prefix.bytes.empty())) return;
    const auto* bytes = static_cast<const uint8_t*>(mnl_attr_get_payload(attribute));
    prefix.bytes.assign(bytes, bytes + mnl_attr_get_payload_len(attribute));
  });
  dump.found.push_back(prefix.text());
  return MNL_CB_OK;
}

struct RouteDump {
  unsigned index;
  uint32_t table;
  IpPrefix destination, gateway;
  bool found = false;
};

int lookForRoute(const nlmsghdr* message, void* data) {
  auto& dump = *static_cast<RouteDump*>(data);
  const auto* body = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  if (body->rtm_family != dump.destination.family || body->rtm_dst_len != dump.destination.length ||
      body->rtm_type != RTN_UNICAST)
    return MNL_CB_OK;
  uint32_t index = 0, table = body->rtm_table;
  std::vector<uint8_t> destination(dump.destination.bytes.size()), gateway;
  forEachAttribute(message, sizeof *body, [&](const nlattr* attribute) {
    const uint16_t type = mnl_attr_get_type(attribute);
    const auto* bytes = static_cast<const uint8_t*>(mnl_attr_get_payload(attribute));
    const size_t length = mnl_attr_get_payload_len(attribute);
    if (type == RTA_OIF && length == 4) index = mnl_attr_get_u32(attribute);
    if (type == RTA_TABLE && length == 4) table = mnl_attr_get_u32(attribute);
    if (type == RTA_DST) destination.assign(bytes, bytes + length);
    if (type == RTA_GATEWAY) gateway.assign(bytes, bytes + length);
  });
  if (index == dump.index && table == dump.table && destination == dump.destination.bytes &&
      gateway == dump.gateway.bytes)
    dump.found = true;
  return MNL_CB_OK;
}

RtnetlinkRequest addressRequest(uint16_t type, uint16_t flags, unsigned index,
                                const IpPrefix& prefix) {
  RtnetlinkRequest request(type, flags);
  auto& body = request.body<ifaddrmsg>();
  body.ifa_family = prefix.family;
  body.ifa_prefixlen = prefix.length;
  body.ifa_flags = IFA_F_NODAD;
  body.ifa_index = index;
  mnl_attr_put(request.get(), IFA_LOCAL, prefix.bytes.size(), prefix.bytes.data());
  mnl_attr_put(request.get(), IFA_ADDRESS, prefix.bytes.size(), prefix.bytes.data());
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

RtnetlinkRequest routeRequest(uint16_t type, uint16_t flags, unsigned index,
                              const PodRoute& route) {
  const IpPrefix prefix = parsePrefix(route.destination).network();
  const IpPrefix via = gatewayOf(route, prefix);
  RtnetlinkRequest request(type, flags);
  auto& body = request.body<rtmsg>();
  body.rtm_family = prefix.family;
  body.rtm_dst_len = prefix.length;
  body.rtm_table = RT_TABLE_UNSPEC;  // the attribute has room for all numbers
  body.rtm_protocol = RTPROT_STATIC;
  body.rtm_scope = route.scope.value_or(via.bytes.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE);
  body.rtm_type = RTN_UNICAST;
  nlmsghdr* message = request.get();
  mnl_attr_put_u32(message, RTA_TABLE, tableOf(route));
  if (prefix.length > 0) mnl_attr_put(message, RTA_DST, prefix.bytes.size(), prefix.bytes.data());
  mnl_attr_put_u32(message, RTA_OIF, index);
  if (!via.bytes.empty()) mnl_attr_put(message, RTA_GATEWAY, via.bytes.size(), via.bytes.data());
  if (route.priority != 0) mnl_attr_put_u32(message, RTA_PRIORITY, route.priority);
  if (route.mtu != 0 || route.advmss != 0) {
    nlattr* metrics = mnl_attr_nest_start(message, RTA_METRICS);
    if (route.mtu != 0) mnl_attr_put_u32(message, RTAX_MTU, route.mtu);
    if (route.advmss != 0) mnl_attr_put_u32(message, RTAX_ADVMSS, route.advmss);
    mnl_attr_nest_end(message, metrics);
  }
  return request;
}

}  // namespace

void Rtnetlink::addAddress(unsigned index, const std::string& address) {
  auto add = addressRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, parsePrefix(address));
  if (const int error = request(add.get())) throw systemError(error, "cannot add {}", address);
}

void Rtnetlink::removeAddress(unsigned index, const std::string& address) {
  auto remove = addressRequest(RTM_DELADDR, 0, index, parsePrefix(address));
  const int error = request(remove.get());
  if (error != 0 && error != EADDRNOTAVAIL) throw systemError(error, "cannot remove {}", address);
}

bool Rtnetlink::addRoute(unsigned index, const PodRoute& route) {
  auto add = routeRequest(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, route);
  const int error = request(add.get());
  if (error == EEXIST) return hasRoute(index, route);
  if (error != 0)
    throw systemError(error, "cannot add the route to {} {}", route.destination,
                      route.gateway.empty() ? "on the link" : "via " + route.gateway);
  return true;
}

void Rtnetlink::removeRoute(unsigned index, const PodRoute& route) {
  auto remove = routeRequest(RTM_DELROUTE, 0, index, route);
  const int error = request(remove.get());
  if (error != 0 && error != ESRCH)
    throw systemError(error, "cannot remove the route to {}", route.destination);
}

std::vector<std::string> Rtnetlink::addresses(unsigned index) {
  RtnetlinkRequest get(RTM_GETADDR, NLM_F_DUMP);
  get.body<ifaddrmsg>().ifa_family = AF_UNSPEC;
  AddressDump dump{index, {}};
  this->dump(get.get(), collectAddress, &dump);
  return dump.found;
}

bool Rtnetlink::hasRoute(unsigned index, const PodRoute& route) {
  const IpPrefix destination = parsePrefix(route.destination).network();
  RouteDump dump{index, tableOf(route), destination, gatewayOf(route, destination)};
  RtnetlinkRequest get(RTM_GETROUTE, NLM_F_DUMP);
  get.body<rtmsg>().rtm_family = destination.family;
  this->dump(get.get(), lookForRoute, &dump);
  return dump.found;
}

void Rtnetlink::dump(nlmsghdr* message, Callback callback, void* data) {
  message->nlmsg_flags = static_cast<uint16_t>(message->nlmsg_flags & ~NLM_F_ACK);
  message->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_, message, message->nlmsg_len) < 0)
    throw systemError(errno, "cannot ask for addresses and routes");
  std::vector<char> answer(64 << 10);
  for (int more = 1; more > 0;) {
    const ssize_t length = mnl_socket_recvfrom(socket_, answer.data(), answer.size());
    if (length < 0) throw systemError(errno, "cannot ask for addresses and routes");
    more = mnl_cb_run(answer.data(), static_cast<size_t>(length), sequence_,
                      mnl_socket_get_portid(socket_), callback, data);
    if (more < 0) throw systemError(errno, "cannot ask for addresses and routes");
  }
}

}  // namespace vdpa::datapath
