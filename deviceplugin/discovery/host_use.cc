#include "deviceplugin/discovery/host_use.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/errors.h"

namespace vdpa::plugin {
namespace {

// While links come and go constantly, about one dump in thirty is interrupted.
constexpr int kAttempts = 10;

// The attributes of a message whose family header has `size` bytes.
void forEachAttribute(const nlmsghdr* message, size_t size,
                      const std::function<void(uint16_t type, const nlattr*)>& handler) {
  if (message->nlmsg_len < mnl_nlmsg_size(size)) return;
  const auto* end = reinterpret_cast<const char*>(message) + message->nlmsg_len;
  for (auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, size));
       mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute))
    handler(mnl_attr_get_type(attribute), attribute);
}

unsigned number(const nlattr* attribute) {
  return mnl_attr_get_payload_len(attribute) == 4 ? mnl_attr_get_u32(attribute) : 0;
}

std::string text(const nlattr* attribute) {
  const std::string all(static_cast<const char*>(mnl_attr_get_payload(attribute)),
                        mnl_attr_get_payload_len(attribute));
  return all.substr(0, all.find('\0'));
}

std::string kindOf(const nlattr* info) {
  std::string kind;
  const auto* end =
      static_cast<const char*>(mnl_attr_get_payload(info)) + mnl_attr_get_payload_len(info);
  for (auto* attribute = static_cast<const nlattr*>(mnl_attr_get_payload(info));
       mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute))
    if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND) kind = text(attribute);
  return kind;
}

int takeLink(const nlmsghdr* message, void* data) {
  NetworkConfiguration::Link link;
  link.index = static_cast<unsigned>(
      static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message))->ifi_index);
  bool elsewhere = false;
  forEachAttribute(message, sizeof(ifinfomsg), [&](uint16_t type, const nlattr* attribute) {
    if (type == IFLA_IFNAME) link.name = text(attribute);
    if (type == IFLA_MASTER) link.master = number(attribute);
    if (type == IFLA_LINK) link.lower = number(attribute);
    if (type == IFLA_LINK_NETNSID) elsewhere = true;  // the index is of another namespace
    if (type == IFLA_LINKINFO) link.kind = kindOf(attribute);
  });
  if (elsewhere) link.lower = 0;
  static_cast<NetworkConfiguration*>(data)->links.push_back(std::move(link));
  return MNL_CB_OK;
}

int takeAddress(const nlmsghdr* message, void* data) {
  const auto* body = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  NetworkConfiguration::Address address;
  address.index = body->ifa_index;
  address.linkLocal = body->ifa_family == AF_INET6 && body->ifa_scope == RT_SCOPE_LINK;
  forEachAttribute(message, sizeof *body, [&](uint16_t type, const nlattr* attribute) {
    if (type != IFA_ADDRESS && type != IFA_LOCAL) return;
    const size_t size = body->ifa_family == AF_INET ? 4 : 16;
    std::array<char, INET6_ADDRSTRLEN> shown{};
    if (mnl_attr_get_payload_len(attribute) != size ||
        !::inet_ntop(body->ifa_family, mnl_attr_get_payload(attribute), shown.data(), shown.size()))
      return;
    if (type == IFA_LOCAL || address.text.empty())
      address.text = fmt::format("{}/{}", shown.data(), body->ifa_prefixlen);
  });
  static_cast<NetworkConfiguration*>(data)->addresses.push_back(std::move(address));
  return MNL_CB_OK;
}

int takeRoute(const nlmsghdr* message, void* data) {
  const auto* body = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  if (body->rtm_dst_len != 0 || body->rtm_type != RTN_UNICAST ||
      (body->rtm_family != AF_INET && body->rtm_family != AF_INET6))
    return MNL_CB_OK;
  auto& routes = static_cast<NetworkConfiguration*>(data)->defaultRoutes;
  forEachAttribute(message, sizeof *body, [&](uint16_t type, const nlattr* attribute) {
    if (type == RTA_OIF) routes.push_back(number(attribute));
    if (type != RTA_MULTIPATH) return;
    const auto* hop = static_cast<const rtnexthop*>(mnl_attr_get_payload(attribute));
    for (int left = mnl_attr_get_payload_len(attribute); RTNH_OK(hop, left);) {
      routes.push_back(static_cast<unsigned>(hop->rtnh_ifindex));
      left -= static_cast<int>(RTNH_ALIGN(hop->rtnh_len));
      hop = RTNH_NEXT(hop);
    }
  });
  return MNL_CB_OK;
}

void dump(mnl_socket* socket, uint16_t type, uint32_t sequence, mnl_cb_t take, void* data) {
  std::array<char, 128> buffer{};
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = type;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request->nlmsg_seq = sequence;
  mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg));  // the largest of the three, all zero
  if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
    throw systemError(errno, "cannot request the network configuration");
  for (int more = MNL_CB_OK; more == MNL_CB_OK;) {
    std::array<char, 65536> answers;
    const ssize_t length = mnl_socket_recvfrom(socket, answers.data(), answers.size());
    if (length < 0) throw systemError(errno, "cannot read the network configuration");
    // EINTR: the configuration changed meanwhile, so the dump may be incomplete.
    more = mnl_cb_run(answers.data(), static_cast<size_t>(length), sequence,
                      mnl_socket_get_portid(socket), take, data);
    if (more < 0) throw systemError(errno, "cannot read the network configuration");
  }
}

NetworkConfiguration dumpOnce() {
  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(
      mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC), mnl_socket_close);
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    throw systemError(errno, "cannot open a netlink socket");
  NetworkConfiguration network;
  dump(socket.get(), RTM_GETLINK, 1, takeLink, &network);
  dump(socket.get(), RTM_GETADDR, 2, takeAddress, &network);
  dump(socket.get(), RTM_GETROUTE, 3, takeRoute, &network);
  return network;
}

}  // namespace

NetworkConfiguration dumpNetwork() {
  for (int left = kAttempts - 1;; --left) {
    try {
      return dumpOnce();
    } catch (const std::system_error& error) {
      if (error.code().value() != EINTR || left == 0) throw;
    }
  }
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
