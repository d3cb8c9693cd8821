#include "deviceplugin/datapath/netlink/rtnetlink.h"

#include <fmt/core.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"

namespace vdpa::datapath {
namespace {

using netlink::Attribute;
using netlink::Error;
using netlink::Message;
using netlink::Request;

void check(const Error& error, const std::string& what) {
  if (error) throw netlink::failure(error, "cannot {}", what);
}

// A change of the netdev with this index.
Request linkRequest(unsigned index, unsigned changedFlags = 0, unsigned flags = 0) {
  Request request(RTM_NEWLINK);
  auto& body = request.body<ifinfomsg>();
  body.ifi_index = static_cast<int>(index);
  body.ifi_change = changedFlags;
  body.ifi_flags = flags;
  return request;
}

std::optional<Rtnetlink::Link> linkOf(const Message& message) {
  const auto body = message.body<ifinfomsg>();
  if (!body) return std::nullopt;
  Rtnetlink::Link link;
  link.index = static_cast<unsigned>(body->ifi_index);
  link.up = (body->ifi_flags & IFF_UP) != 0;
  link.running = (body->ifi_flags & IFF_RUNNING) != 0;
  for (const Attribute attribute : message.attributes<ifinfomsg>()) {
    if (attribute.type() == IFLA_MTU) link.mtu = attribute.number<uint32_t>().value_or(0);
    if (attribute.type() == IFLA_ADDRESS) link.mac = attribute.mac();
  }
  return link;
}

}  // namespace

Rtnetlink::Rtnetlink() : socket_(NETLINK_ROUTE) {}

std::optional<Rtnetlink::Link> Rtnetlink::find(const std::string& name) {
  Request get(RTM_GETLINK);
  get.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  get.text(IFLA_IFNAME, name);
  std::optional<Link> link;
  const Error error = socket_.request(get, [&](const Message& message) { link = linkOf(message); });
  if (error.number == ENODEV) return std::nullopt;
  check(error, fmt::format("ask for netdev {}", name));
  return link;
}

void Rtnetlink::moveTo(unsigned index, int netns, const std::string& name) {
  Request set = linkRequest(index);
  set.number(IFLA_NET_NS_FD, static_cast<uint32_t>(netns));
  set.text(IFLA_IFNAME, name);
  check(socket_.request(set), fmt::format("move a netdev to another namespace as {}", name));
}

void Rtnetlink::rename(unsigned index, const std::string& name) {
  Request set = linkRequest(index);
  set.text(IFLA_IFNAME, name);
  check(socket_.request(set), fmt::format("rename a netdev to {}", name));
}

void Rtnetlink::setUp(unsigned index, bool up) {
  Request set = linkRequest(index, IFF_UP, up ? IFF_UP : 0);
  check(socket_.request(set), up ? "set a netdev up" : "set a netdev down");
}

void Rtnetlink::setMac(unsigned index, const MacAddress& mac) {
  Request set = linkRequest(index);
  set.mac(IFLA_ADDRESS, mac);
  check(socket_.request(set), fmt::format("set the MAC {}", mac.text()));
}

void Rtnetlink::setMtu(unsigned index, unsigned mtu) {
  Request set = linkRequest(index);
  set.number(IFLA_MTU, static_cast<uint32_t>(mtu));
  check(socket_.request(set), fmt::format("set the MTU {}", mtu));
}

}  // namespace vdpa::datapath
