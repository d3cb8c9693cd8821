// Moving a netdev into a pod's network namespace.
//
// Source: rtnetlink(7); IFLA_NET_NS_FD and IFLA_IFNAME in include/uapi/linux/if_link.h.
#pragma once

#include <string>
#include <vector>

namespace vdpa {

struct PodNetdev {
  std::string host;   // its name in our namespace
  std::string pod;    // and in the pod's
  std::string netns;  // path of the pod's namespace
};

struct NetdevFacts {
  std::string mac;  // lower case
  unsigned mtu = 0;
};

struct PodRoute {
  std::string destination;  // "10.0.0.0/8"
  std::string gateway;      // empty: on the link
};

// Moves it, gives it its new name, addresses ("10.0.0.2/24") and routes, and sets it up; an `mtu`
// of 0 leaves its own. Throws std::system_error naming netdev and namespace.
NetdevFacts moveToPod(const PodNetdev& netdev, const std::vector<std::string>& addresses,
                      const std::vector<PodRoute>& routes, unsigned mtu);

// Gives a netdev of the host another name. That it can't be had is logged and no more: somebody
// else may have names for netdevs, too.
void renameOnHost(const std::string& now, const std::string& name);

// Whether the pod's namespace has it, up.
bool podHas(const PodNetdev& netdev);

}  // namespace vdpa
