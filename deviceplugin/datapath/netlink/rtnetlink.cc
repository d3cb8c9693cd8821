#include "deviceplugin/datapath/netlink/rtnetlink.h"

#include <fmt/core.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/netlink/rtnetlink_message.h"

namespace vdpa::datapath {
namespace {

void check(int error, const std::string& what) {
  if (error != 0) throw systemError(error, "cannot {}", what);
}

int collectLink(const nlmsghdr* message, void* data) {
  auto& link = *static_cast<std::optional<Rtnetlink::Link>*>(data);
  const auto* body = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  link.emplace();
  link->index = static_cast<unsigned>(body->ifi_index);
  link->up = (body->ifi_flags & IFF_UP) != 0;
  link->running = (body->ifi_flags & IFF_RUNNING) != 0;
  forEachAttribute(message, sizeof *body, [&](const nlattr* attribute) {
    const uint16_t type = mnl_attr_get_type(attribute);
    if (type == IFLA_MTU && mnl_attr_get_payload_len(attribute) == 4)
      link->mtu = mnl_attr_get_u32(attribute);
    if (type == IFLA_ADDRESS && mnl_attr_get_payload_len(attribute) == 6) {
      const auto* mac = static_cast<const uint8_t*>(mnl_attr_get_payload(attribute));
      link->mac = fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2],
                              mac[3], mac[4], mac[5]);
    }
  });
  return MNL_CB_OK;
}

}  // namespace

Rtnetlink::Rtnetlink() : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)) {
  if (!socket_) throw systemError(errno, "cannot open a netlink socket");
  if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
    const int error = errno;
    mnl_socket_close(socket_);
    throw systemError(error, "cannot bind a netlink socket");
  }
}

Rtnetlink::~Rtnetlink() {
  mnl_socket_close(socket_);
}

int Rtnetlink::request(nlmsghdr* message) {
  message->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_, message, message->nlmsg_len) < 0) return errno;
  std::array<char, 8192> answer;
  const ssize_t length = mnl_socket_recvfrom(socket_, answer.data(), answer.size());
  if (length < 0) return errno;
  const int result = mnl_cb_run(answer.data(), static_cast<size_t>(length), sequence_,
                                mnl_socket_get_portid(socket_), nullptr, nullptr);
  return result < 0 ? errno : 0;
}

bool Rtnetlink::ask(const std::string& name, uint32_t extensions, Callback callback, void* data) {
  RtnetlinkRequest get(RTM_GETLINK, 0);
  get.get()->nlmsg_flags = NLM_F_REQUEST;  // the answer is the acknowledgement
  get.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(get.get(), IFLA_IFNAME, name.c_str());
  if (extensions != 0) mnl_attr_put_u32(get.get(), IFLA_EXT_MASK, extensions);
  get.get()->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_, get.get(), get.get()->nlmsg_len) < 0)
    throw systemError(errno, "cannot ask for netdev {}", name);
  std::vector<char> answer(128 << 10);  // a PF's message has all its VFs
  const ssize_t length = mnl_socket_recvfrom(socket_, answer.data(), answer.size());
  if (length < 0) throw systemError(errno, "cannot ask for netdev {}", name);
  if (mnl_cb_run(answer.data(), static_cast<size_t>(length), sequence_,
                 mnl_socket_get_portid(socket_), callback, data) < 0) {
    if (errno == ENODEV) return false;
    throw systemError(errno, "cannot ask for netdev {}", name);
  }
  return true;
}

std::optional<Rtnetlink::Link> Rtnetlink::find(const std::string& name) {
  std::optional<Link> link;
  ask(name, 0, collectLink, &link);
  return link;
}

bool Rtnetlink::linkAttributes(const std::string& name,
                               const std::function<void(std::span<const std::byte>)>& take) {
  using Take = std::function<void(std::span<const std::byte>)>;
  const auto hand = [](const nlmsghdr* message, void* data) {
    const auto* start =
        static_cast<const std::byte*>(mnl_nlmsg_get_payload_offset(message, sizeof(ifinfomsg)));
    const auto* end = reinterpret_cast<const std::byte*>(message) + message->nlmsg_len;
    (*static_cast<const Take*>(data))({start, end});
    return MNL_CB_OK;
  };
  return ask(name, RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS, hand, const_cast<Take*>(&take));
}

int Rtnetlink::setLink(const std::string& name, const std::function<void(nlmsghdr*)>& put) {
  RtnetlinkRequest set(RTM_SETLINK, 0);
  set.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(set.get(), IFLA_IFNAME, name.c_str());
  put(set.get());
  return request(set.get());
}

void Rtnetlink::moveTo(unsigned index, int netns, const std::string& name) {
  RtnetlinkRequest set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_u32(set.get(), IFLA_NET_NS_FD, static_cast<uint32_t>(netns));
  mnl_attr_put_strz(set.get(), IFLA_IFNAME, name.c_str());
  check(request(set.get()), fmt::format("move a netdev to another namespace as {}", name));
}

void Rtnetlink::rename(unsigned index, const std::string& name) {
  RtnetlinkRequest set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_strz(set.get(), IFLA_IFNAME, name.c_str());
  check(request(set.get()), fmt::format("rename a netdev to {}", name));
}

void Rtnetlink::setUp(unsigned index, bool up) {
  RtnetlinkRequest set(RTM_NEWLINK, 0);
  auto& body = set.body<ifinfomsg>();
  body.ifi_index = static_cast<int>(index);
  body.ifi_change = IFF_UP;
  body.ifi_flags = up ? IFF_UP : 0;
  check(request(set.get()), up ? "set a netdev up" : "set a netdev down");
}

void Rtnetlink::setMac(unsigned index, const std::string& mac) {
  std::array<uint8_t, 6> octets{};
  std::sscanf(mac.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &octets[0], &octets[1],
              &octets[2], &octets[3], &octets[4], &octets[5]);
  RtnetlinkRequest set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put(set.get(), IFLA_ADDRESS, octets.size(), octets.data());
  check(request(set.get()), fmt::format("set the MAC {}", mac));
}

void Rtnetlink::setMtu(unsigned index, unsigned mtu) {
  RtnetlinkRequest set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_u32(set.get(), IFLA_MTU, mtu);
  check(request(set.get()), fmt::format("set the MTU {}", mtu));
}

}  // namespace vdpa::datapath
