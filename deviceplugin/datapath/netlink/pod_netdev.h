// Moving a netdev into a pod's network namespace.
//
// Source: rtnetlink(7); IFLA_NET_NS_FD and IFLA_IFNAME in include/uapi/linux/if_link.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/mac_address.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

namespace vdpa::datapath {

struct PodNetdev {
  std::string host;   // its name in our namespace
  std::string pod;    // and in the pod's
  std::string netns;  // path of the pod's namespace
};

struct NetdevFacts {
  std::optional<MacAddress> mac;  // absent: it has none of six bytes
  unsigned mtu = 0;
};

struct PodMac {
  std::optional<MacAddress> address;  // absent: its own
  bool required = false;              // else it keeps its own if this one can't be set
};

// Moves it, renames it and sets it up; an `mtu` of 0 leaves its own. Throws std::system_error
// naming netdev and namespace.
NetdevFacts moveToPod(const PodNetdev& netdev, unsigned mtu, const PodMac& mac = {});

// Replaces the addresses and routes `before` with `now`, and announces the addresses to the
// neighbours. Addresses and routes from others stay. Can be repeated. Returns the routes that it
// has: a route is skipped if the pod already has one to that destination. Throws std::system_error
// naming what can't be set.
std::vector<PodRoute> setAddresses(const PodNetdev& netdev, const PodAddresses& before,
                                   const PodAddresses& now);

// Renames a netdev of the host. A failure is only logged: others may rename netdevs, too.
void renameOnHost(const std::string& now, const std::string& name);

// Adds what the pod's interface lacks of this. Throws std::system_error if the namespace can't be
// entered.
void compareNetdev(const PodNetdev& netdev, const NetdevFacts& facts, const PodAddresses& addresses,
                   Differences& differences);

}  // namespace vdpa::datapath
