#include "deviceplugin/datapath/hardware/vf.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/netlink/rtnetlink.h"

namespace vdpa::datapath {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

template <typename Handler>
void forEachAttribute(Bytes bytes, Handler handler) {
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return;
    handler(header.nla_type & NLA_TYPE_MASK,
            bytes.subspan(sizeof header, header.nla_len - sizeof header));
    bytes = bytes.subspan(std::min<size_t>(MNL_ALIGN(header.nla_len), bytes.size()));
  }
}

// Nothing if the kernel's structure is shorter than ours.
template <typename Body>
std::optional<Body> bodyOf(Bytes bytes) {
  Body body;
  if (bytes.size() < sizeof body) return std::nullopt;
  std::memcpy(&body, bytes.data(), sizeof body);
  return body;
}

int reported(uint32_t setting) {
  return setting > 1 ? -1 : static_cast<int>(setting);
}

std::string macOf(const ifla_vf_mac& vf) {
  const std::span octets(vf.mac, 6);
  if (std::ranges::all_of(octets, [](uint8_t octet) { return octet == 0; })) return "";
  return fmt::format("{:02x}", fmt::join(octets, ":"));
}

ifla_vf_mac toVfMac(unsigned vf, const std::string& mac) {
  ifla_vf_mac body{};
  body.vf = vf;
  if (!mac.empty())
    std::sscanf(mac.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &body.mac[0], &body.mac[1],
                &body.mac[2], &body.mac[3], &body.mac[4], &body.mac[5]);
  return body;
}

void take(VfValues& values, int type, Bytes bytes) {
  if (type == IFLA_VF_MAC) {
    if (const auto mac = bodyOf<ifla_vf_mac>(bytes)) values.mac = macOf(*mac);
  } else if (type == IFLA_VF_RATE) {
    if (const auto rate = bodyOf<ifla_vf_rate>(bytes)) {
      values.minTxRate = rate->min_tx_rate;
      values.maxTxRate = rate->max_tx_rate;
    }
  } else if (type == IFLA_VF_SPOOFCHK) {
    if (const auto check = bodyOf<ifla_vf_spoofchk>(bytes))
      values.spoofCheck = reported(check->setting);
  } else if (type == IFLA_VF_TRUST) {
    if (const auto trust = bodyOf<ifla_vf_trust>(bytes)) values.trust = reported(trust->setting);
  } else if (type == IFLA_VF_LINK_STATE) {
    if (const auto state = bodyOf<ifla_vf_link_state>(bytes))
      values.linkState = state->link_state == IFLA_VF_LINK_STATE_ENABLE    ? "enable"
                         : state->link_state == IFLA_VF_LINK_STATE_DISABLE ? "disable"
                                                                           : "auto";
  } else if (type == IFLA_VF_VLAN_LIST) {
    forEachAttribute(bytes, [&](int inner, Bytes content) {
      const auto vlan = bodyOf<ifla_vf_vlan_info>(content);
      if (inner != IFLA_VF_VLAN_INFO || !vlan) return;
      values.vlan = vlan->vlan;
      values.vlanQos = vlan->qos;
      values.vlanProto = vlan->vlan_proto == htons(ETH_P_8021AD) ? "802.1ad" : "802.1q";
    });
  }
}

void put(nlmsghdr* message, unsigned vf, VfPart part, const VfValues& values) {
  const auto add = [&](uint16_t type, const auto& body) {
    mnl_attr_put(message, type, sizeof body, &body);
  };
  switch (part) {
    case VfPart::mac:
      return add(IFLA_VF_MAC, toVfMac(vf, values.mac));
    case VfPart::vlan: {
      nlattr* list = mnl_attr_nest_start(message, IFLA_VF_VLAN_LIST);
      const uint16_t protocol = values.vlanProto == "802.1ad" ? ETH_P_8021AD : ETH_P_8021Q;
      add(IFLA_VF_VLAN_INFO, ifla_vf_vlan_info{vf, values.vlan, values.vlanQos, htons(protocol)});
      mnl_attr_nest_end(message, list);
      return;
    }
    case VfPart::rate:
      return add(IFLA_VF_RATE, ifla_vf_rate{vf, values.minTxRate, values.maxTxRate});
    case VfPart::spoofCheck:
      return add(IFLA_VF_SPOOFCHK, ifla_vf_spoofchk{vf, values.spoofCheck == 1 ? 1u : 0u});
    case VfPart::trust:
      return add(IFLA_VF_TRUST, ifla_vf_trust{vf, values.trust == 1 ? 1u : 0u});
    case VfPart::linkState:
      return add(IFLA_VF_LINK_STATE,
                 ifla_vf_link_state{vf, values.linkState == "enable"    ? IFLA_VF_LINK_STATE_ENABLE
                                        : values.linkState == "disable" ? IFLA_VF_LINK_STATE_DISABLE
                                                                        : IFLA_VF_LINK_STATE_AUTO});
  }
}

// In switchdev mode there are representors too: "pf0vf1" and "c1pf0sf2" name what they represent,
// "p0" is a port itself.
std::string ownNetdev(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::string port;
    std::ifstream(entry.path() / "phys_port_name") >> port;
    if (!port.starts_with("pf") && !port.starts_with('c')) names.push_back(entry.path().filename());
  }
  return names.empty() ? "" : *std::ranges::min_element(names);
}

}  // namespace

std::optional<VfValues> parseVf(Bytes attributes, unsigned index) {
  std::optional<VfValues> found;
  forEachAttribute(attributes, [&](int type, Bytes list) {
    if (type != IFLA_VFINFO_LIST) return;
    forEachAttribute(list, [&](int entry, Bytes info) {
      if (entry != IFLA_VF_INFO) return;
      VfValues values;
      bool mine = false;
      forEachAttribute(info, [&](int part, Bytes content) {
        if (part == IFLA_VF_MAC)
          if (const auto mac = bodyOf<ifla_vf_mac>(content)) mine = mac->vf == index;
        take(values, part, content);
      });
      if (mine) found = values;
    });
  });
  return found;
}

std::optional<Vf> findVf(const std::string& sysfs, const std::string& pciAddress) {
  if (pciAddress.empty()) return std::nullopt;
  const std::string physfn = sysfs + "/bus/pci/devices/" + pciAddress + "/physfn";
  std::error_code error;
  Vf vf;
  vf.pf = ownNetdev(physfn + "/net");
  // A virtio function's netdev is one level deeper.
  if (const std::string virtio = entryStarting(physfn, "virtio"); vf.pf.empty() && !virtio.empty())
    vf.pf = ownNetdev(physfn + "/" + virtio + "/net");
  if (vf.pf.empty()) return std::nullopt;
  vf.driver = linkName(physfn + "/driver");
  for (const auto& entry : fs::directory_iterator(physfn, error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("virtfn") || linkName(entry.path()) != pciAddress) continue;
    vf.index = static_cast<unsigned>(std::stoul(name.substr(6)));
    Rtnetlink rtnetlink;
    rtnetlink.linkAttributes(vf.pf,
                             [&](Bytes attributes) { vf.values = parseVf(attributes, vf.index); });
    return vf;
  }
  return std::nullopt;
}

int writeVf(const Vf& vf, VfPart part, const VfValues& values) {
  Rtnetlink rtnetlink;
  return rtnetlink.setLink(vf.pf, [&](nlmsghdr* message) {
    nlattr* list = mnl_attr_nest_start(message, IFLA_VFINFO_LIST);
    nlattr* info = mnl_attr_nest_start(message, IFLA_VF_INFO);
    put(message, vf.index, part, values);
    mnl_attr_nest_end(message, info);
    mnl_attr_nest_end(message, list);
  });
}

}  // namespace vdpa::datapath
