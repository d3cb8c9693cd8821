// Moving a netdev into a pod's network namespace.
//
// Source: rtnetlink(7); IFLA_NET_NS_FD and IFLA_IFNAME in include/uapi/linux/if_link.h.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

namespace vdpa::datapath {

struct PodNetdev {
  std::string host;   // its name in our namespace
  std::string pod;    // and in the pod's
  std::string netns;  // path of the pod's namespace
};

struct NetdevFacts {
  std::string mac;  // lower case
  unsigned mtu = 0;
};

struct PodMac {
  std::string address;    // empty: its own
  bool required = false;  // or it keeps its own where it can't have this one
};

// Moves it, gives it its new name and sets it up; an `mtu` of 0 leaves its own. Throws
// std::system_error naming netdev and namespace.
NetdevFacts moveToPod(const PodNetdev& netdev, unsigned mtu, const PodMac& mac = {});

// Makes `now` of the addresses and routes that it has `before`, and tells the neighbours of its
// addresses. What others gave it stays. Can be done again. Returns the routes that it has: one to a
// destination that the pod has a route to already is left out. Throws std::system_error naming what
// can't be set.
std::vector<PodRoute> setAddresses(const PodNetdev& netdev, const PodAddresses& before,
                                   const PodAddresses& now);

// Gives a netdev of the host another name. That it can't be had is logged and no more: somebody
// else may have names for netdevs, too.
void renameOnHost(const std::string& now, const std::string& name);

// What of this the pod's interface doesn't have, in words. Throws std::system_error when the
// namespace can't be entered.
void compareNetdev(const PodNetdev& netdev, const NetdevFacts& facts, const PodAddresses& addresses,
                   Differences& differences);

}  // namespace vdpa::datapath
