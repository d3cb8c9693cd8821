#include "tests/unit/datapath/fake_pf.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <utility>

#include "common/errors.h"
#include "common/mac_address.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"
#include "common/port_settings.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {
namespace {

using netlink::Attribute;
using netlink::Message;
using netlink::Request;

constexpr unsigned kIndex = 7, kVf = 2;

void send(int socket, Request& answer, const Message& request, uint16_t flags = 0) {
  answer.header()->nlmsg_flags = flags;
  answer.header()->nlmsg_seq = request.sequence();
  const auto bytes = answer.message();
  checked(static_cast<int>(::send(socket, bytes.data(), bytes.size(), 0)), "cannot answer");
}

ifla_vf_mac vfMac(const std::optional<MacAddress>& mac) {
  ifla_vf_mac body{kVf, {}};
  if (mac) std::ranges::copy(mac->bytes(), body.mac);
  return body;
}

uint32_t shown(const std::optional<bool>& setting) {
  return !setting ? UINT32_MAX : *setting ? 1u : 0u;
}

// By IFLA_VF_LINK_STATE_*.
constexpr std::array kStates{LinkState::automatic, LinkState::enable, LinkState::disable};

uint32_t shown(const std::optional<LinkState>& state) {
  return static_cast<uint32_t>(std::ranges::find(kStates, state) - kStates.begin());
}

// A structure that has to be whole, and VF 2's.
template <typename Body>
Body bodyOf(const Attribute& attribute) {
  const auto body = attribute.structure<Body>();
  if (!body || body->vf != kVf) throw std::runtime_error("a setting of no VF");
  return *body;
}

std::optional<VfPart> partOf(const Attribute& attribute) {
  switch (attribute.type()) {
    case IFLA_VF_MAC:
      return VfPart::mac;
    case IFLA_VF_VLAN_LIST:
      return VfPart::vlan;
    case IFLA_VF_RATE:
      return VfPart::rate;
    case IFLA_VF_SPOOFCHK:
      return VfPart::spoofCheck;
    case IFLA_VF_TRUST:
      return VfPart::trust;
    case IFLA_VF_LINK_STATE:
      return VfPart::linkState;
    default:
      return std::nullopt;
  }
}

}  // namespace

FakePf::~FakePf() {
  for (auto& thread : threads_) thread.join();
}

Vf FakePf::vf() {
  std::array<int, 2> ends{};
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  UniqueFd ours(ends[0]);
  threads_.emplace_back([this, socket = ours.get()] { serve(socket); });
  sockets_.push_back(std::move(ours));
  return {{"eth1", kIndex, kVf, "driver"}, netlink::Socket(UniqueFd(ends[1]))};
}

void FakePf::serve(int socket) {
  alignas(nlmsghdr) std::array<std::byte, 4096> buffer;
  for (;;) {
    const ssize_t length = ::recv(socket, buffer.data(), buffer.size(), 0);
    if (length <= 0) return;
    netlink::Messages messages(netlink::Bytes(buffer.data(), static_cast<size_t>(length)));
    while (const auto message = messages.next()) answer(socket, *message);
  }
}

void FakePf::answer(int socket, const Message& request) {
  const auto body = request.body<ifinfomsg>();
  netlink::Error error;
  if (!body || body->ifi_index != static_cast<int>(kIndex) || !present)
    error.number = ENODEV;
  else if (request.type() == RTM_SETLINK)
    error = set(request);
  else
    show(socket, request);
  gets += request.type() == RTM_GETLINK ? 1 : 0;
  Request done(NLMSG_ERROR);
  done.body<nlmsgerr>().error = -error.number;
  if (!error.text.empty()) done.text(NLMSGERR_ATTR_MSG, error.text);
  send(socket, done, request,
       error.text.empty() ? NLM_F_CAPPED : uint16_t{NLM_F_CAPPED | NLM_F_ACK_TLVS});
}

void FakePf::show(int socket, const Message& request) const {
  Request link(RTM_NEWLINK);
  link.body<ifinfomsg>().ifi_index = static_cast<int>(kIndex);
  link.text(IFLA_IFNAME, "eth1");
  if (settable)
    link.nest(IFLA_VFINFO_LIST, [&] {
      link.nest(IFLA_VF_INFO, [&] {
        link.structure(IFLA_VF_MAC, vfMac(values.mac));
        link.nest(IFLA_VF_VLAN_LIST, [&] {
          const bool stacked = values.vlanProto == VlanProtocol::dot1ad;
          const uint16_t protocol = stacked ? ETH_P_8021AD : ETH_P_8021Q;
          link.structure(
              IFLA_VF_VLAN_INFO,
              ifla_vf_vlan_info{kVf, values.vlan.value(), values.vlanQos.value(), htons(protocol)});
        });
        link.structure(IFLA_VF_RATE,
                       ifla_vf_rate{kVf, values.minTxRate.value(), values.maxTxRate.value()});
        link.structure(IFLA_VF_SPOOFCHK, ifla_vf_spoofchk{kVf, shown(values.spoofCheck)});
        link.structure(IFLA_VF_TRUST, ifla_vf_trust{kVf, shown(values.trust)});
        link.structure(IFLA_VF_LINK_STATE, ifla_vf_link_state{kVf, shown(values.linkState)});
      });
    });
  send(socket, link, request);
}

netlink::Error FakePf::set(const Message& request) {
  ++sets;
  if (onSet) onSet();
  for (const Attribute list : request.attributes<ifinfomsg>()) {
    if (list.type() != IFLA_VFINFO_LIST) continue;
    for (const Attribute info : list.nested())
      for (const Attribute setting : info.nested()) {
        const auto part = partOf(setting);
        if (!part || refused.contains(*part)) return {EOPNOTSUPP, "no such setting"};
        written.push_back(*part);
        if (!ignored.contains(*part)) take(setting);
      }
  }
  return {};
}

void FakePf::take(const Attribute& attribute) {
  switch (attribute.type()) {
    case IFLA_VF_MAC: {
      MacAddress::Bytes octets;
      std::copy_n(bodyOf<ifla_vf_mac>(attribute).mac, octets.size(), octets.begin());
      const MacAddress mac(octets);
      values.mac = mac.isZero() ? std::nullopt : std::optional(mac);
      break;
    }
    case IFLA_VF_VLAN_LIST:
      for (const Attribute inner : attribute.nested()) {
        const auto vlan = bodyOf<ifla_vf_vlan_info>(inner);
        values.vlan = vlan.vlan;
        values.vlanQos = vlan.qos;
        values.vlanProto =
            vlan.vlan_proto == htons(ETH_P_8021AD) ? VlanProtocol::dot1ad : VlanProtocol::dot1q;
      }
      break;
    case IFLA_VF_RATE: {
      const auto rate = bodyOf<ifla_vf_rate>(attribute);
      values.minTxRate = rate.min_tx_rate;
      values.maxTxRate = rate.max_tx_rate;
      break;
    }
    case IFLA_VF_SPOOFCHK:
      values.spoofCheck = bodyOf<ifla_vf_spoofchk>(attribute).setting == 1;
      break;
    case IFLA_VF_TRUST:
      values.trust = bodyOf<ifla_vf_trust>(attribute).setting == 1;
      break;
    default:
      values.linkState = kStates.at(bodyOf<ifla_vf_link_state>(attribute).link_state);
      break;
  }
}

}  // namespace vdpa::datapath
