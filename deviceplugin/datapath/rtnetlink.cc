// See the header.
#include "deviceplugin/datapath/rtnetlink.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <array>
#include <charconv>
#include <vector>

#include "common/errors.h"

namespace vdpa {
namespace {

class Request {
 public:
  Request(uint16_t type, uint16_t flags) : header_(mnl_nlmsg_put_header(buffer_.data())) {
    header_->nlmsg_type = type;
    header_->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  }
  template <typename Body>
  Body& body() {
    return *static_cast<Body*>(mnl_nlmsg_put_extra_header(header_, sizeof(Body)));
  }
  nlmsghdr* get() { return header_; }

 private:
  alignas(nlmsghdr) std::array<char, 1024> buffer_{};
  nlmsghdr* header_;
};

struct Prefix {
  uint8_t family = AF_INET;
  uint8_t length = 0;
  std::vector<uint8_t> bytes;
};

// "10.0.0.2/24", or an address alone.
Prefix parsePrefix(const std::string& text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const std::string address = text.substr(0, slash);
  Prefix prefix;
  std::array<uint8_t, 16> bytes{};
  if (::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1)
    prefix.bytes.assign(bytes.begin(), bytes.begin() + 4);
  else if (::inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1)
    prefix.bytes.assign(bytes.begin(), bytes.end());
  else
    throw systemError(EINVAL, "'{}' is no IP address", text);
  prefix.family = prefix.bytes.size() == 4 ? AF_INET : AF_INET6;
  unsigned length = static_cast<unsigned>(prefix.bytes.size()) * 8;
  if (slash < text.size()) {
    const char* end = text.data() + text.size();
    unsigned given = 0;
    const auto parsed = std::from_chars(text.data() + slash + 1, end, given);
    if (parsed.ec != std::errc() || parsed.ptr != end || given > length)
      throw systemError(EINVAL, "'{}' has no valid prefix length", text);
    length = given;
  }
  prefix.length = static_cast<uint8_t>(length);
  return prefix;
}

void check(int error, const std::string& what) {
  if (error != 0) throw systemError(error, "cannot {}", what);
}

int collectLink(const nlmsghdr* message, void* data) {
  auto& link = *static_cast<std::optional<Rtnetlink::Link>*>(data);
  const auto* body = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  link.emplace();
  link->index = static_cast<unsigned>(body->ifi_index);
  link->up = (body->ifi_flags & IFF_UP) != 0;
  // What mnl_attr_for_each() would do, which is C only.
  for (auto* attribute =
           static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, sizeof *body));
       mnl_attr_ok(attribute,
                   static_cast<int>(static_cast<const char*>(mnl_nlmsg_get_payload_tail(message)) -
                                    reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute)) {
    const uint16_t type = mnl_attr_get_type(attribute);
    if (type == IFLA_MTU && mnl_attr_get_payload_len(attribute) == 4)
      link->mtu = mnl_attr_get_u32(attribute);
    if (type == IFLA_ADDRESS && mnl_attr_get_payload_len(attribute) == 6) {
      const auto* mac = static_cast<const uint8_t*>(mnl_attr_get_payload(attribute));
      link->mac = fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2],
                              mac[3], mac[4], mac[5]);
    }
  }
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

std::optional<Rtnetlink::Link> Rtnetlink::find(const std::string& name) {
  Request get(RTM_GETLINK, 0);
  get.get()->nlmsg_flags = NLM_F_REQUEST;  // the answer is the acknowledgement
  get.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(get.get(), IFLA_IFNAME, name.c_str());
  get.get()->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_, get.get(), get.get()->nlmsg_len) < 0)
    throw systemError(errno, "cannot ask for netdev {}", name);
  std::vector<char> answer(64 << 10);  // a link's message has all its statistics and VFs
  const ssize_t length = mnl_socket_recvfrom(socket_, answer.data(), answer.size());
  if (length < 0) throw systemError(errno, "cannot ask for netdev {}", name);
  std::optional<Link> link;
  if (mnl_cb_run(answer.data(), static_cast<size_t>(length), sequence_,
                 mnl_socket_get_portid(socket_), collectLink, &link) < 0) {
    if (errno == ENODEV) return std::nullopt;
    throw systemError(errno, "cannot ask for netdev {}", name);
  }
  return link;
}

void Rtnetlink::moveTo(unsigned index, int netns, const std::string& name) {
  Request set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_u32(set.get(), IFLA_NET_NS_FD, static_cast<uint32_t>(netns));
  mnl_attr_put_strz(set.get(), IFLA_IFNAME, name.c_str());
  check(request(set.get()), fmt::format("move a netdev to another namespace as {}", name));
}

void Rtnetlink::rename(unsigned index, const std::string& name) {
  Request set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_strz(set.get(), IFLA_IFNAME, name.c_str());
  check(request(set.get()), fmt::format("rename a netdev to {}", name));
}

void Rtnetlink::setUp(unsigned index, bool up) {
  Request set(RTM_NEWLINK, 0);
  auto& body = set.body<ifinfomsg>();
  body.ifi_index = static_cast<int>(index);
  body.ifi_change = IFF_UP;
  body.ifi_flags = up ? IFF_UP : 0;
  check(request(set.get()), up ? "set a netdev up" : "set a netdev down");
}

void Rtnetlink::setMtu(unsigned index, unsigned mtu) {
  Request set(RTM_NEWLINK, 0);
  set.body<ifinfomsg>().ifi_index = static_cast<int>(index);
  mnl_attr_put_u32(set.get(), IFLA_MTU, mtu);
  check(request(set.get()), fmt::format("set the MTU {}", mtu));
}

void Rtnetlink::addAddress(unsigned index, const std::string& address) {
  const Prefix prefix = parsePrefix(address);
  Request add(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
  auto& body = add.body<ifaddrmsg>();
  body.ifa_family = prefix.family;
  body.ifa_prefixlen = prefix.length;
  body.ifa_index = index;
  mnl_attr_put(add.get(), IFA_LOCAL, prefix.bytes.size(), prefix.bytes.data());
  mnl_attr_put(add.get(), IFA_ADDRESS, prefix.bytes.size(), prefix.bytes.data());
  check(request(add.get()), "add the address " + address);
}

void Rtnetlink::addRoute(unsigned index, const std::string& destination,
                         const std::string& gateway) {
  const Prefix prefix = parsePrefix(destination);
  Request add(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  auto& body = add.body<rtmsg>();
  body.rtm_family = prefix.family;
  body.rtm_dst_len = prefix.length;
  body.rtm_table = RT_TABLE_MAIN;
  body.rtm_protocol = RTPROT_STATIC;
  body.rtm_scope = gateway.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  body.rtm_type = RTN_UNICAST;
  if (prefix.length > 0) mnl_attr_put(add.get(), RTA_DST, prefix.bytes.size(), prefix.bytes.data());
  mnl_attr_put_u32(add.get(), RTA_OIF, index);
  if (!gateway.empty()) {
    const Prefix via = parsePrefix(gateway);
    if (via.family != prefix.family)
      throw systemError(EINVAL, "gateway {} doesn't fit the route to {}", gateway, destination);
    mnl_attr_put(add.get(), RTA_GATEWAY, via.bytes.size(), via.bytes.data());
  }
  check(request(add.get()), fmt::format("add the route to {}", destination));
}

}  // namespace vdpa
