// The rtnetlink requests for pods' netdevs. A socket belongs to the network namespace it was opened
// in.
//
// Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr}.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/mac_address.h"
#include "common/netlink/socket.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

namespace vdpa::datapath {

class Rtnetlink {
 public:
  // In the calling thread's namespace. Throws std::system_error.
  Rtnetlink();

  struct Link {
    unsigned index = 0;
    std::optional<MacAddress> mac;
    unsigned mtu = 0;
    bool up = false;
    bool running = false;  // up, with a carrier
  };
  // Nothing if there is no netdev of this name.
  std::optional<Link> find(const std::string& name);

  // Each throws std::system_error that names the failed change.
  void moveTo(unsigned index, int netns, const std::string& name);
  void rename(unsigned index, const std::string& name);
  void setUp(unsigned index, bool up);
  void setMtu(unsigned index, unsigned mtu);
  void setMac(unsigned index, const MacAddress& mac);
  // "10.0.0.2/24", usable at once, without duplicate address detection: IPAM gives an address only
  // once, and an application that starts now may bind to it. An existing one stays.
  void addAddress(unsigned index, const std::string& address);
  void removeAddress(unsigned index, const std::string& address);  // if it is there
  // False if there is already a route to this destination, on any interface: that one stays.
  bool addRoute(unsigned index, const PodRoute& route);
  void removeRoute(unsigned index, const PodRoute& route);  // if it is there
  // The interface's addresses, in the kernel's notation; complete even while addresses come and go.
  std::vector<std::string> addresses(unsigned index);
  bool hasRoute(unsigned index, const PodRoute& route);

 private:
  netlink::Socket socket_;
};

}  // namespace vdpa::datapath
