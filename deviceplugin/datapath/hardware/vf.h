// A VF as its PF's driver configures it: read and set by rtnetlink at the PF's netdev.
//
// Source: include/uapi/linux/if_link.h (IFLA_VFINFO_LIST and struct ifla_vf_*), rtnl_fill_vfinfo(),
// do_setlink() and do_setvfinfo() in net/core/rtnetlink.c of Linux 6.12.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/netlink/error.h"
#include "common/netlink/socket.h"
#include "deviceplugin/datapath/hardware/vf_place.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {

// Of one thread at a time.
class Vf {
 public:
  // The socket is one of NETLINK_ROUTE in the PF's network namespace.
  Vf(VfPlace place, netlink::Socket socket)
      : place_(std::move(place)), socket_(std::move(socket)) {}

  const VfPlace& place() const { return place_; }

  // All settings, by one request. Nothing if the PF's driver has no VF settings, or the PF's netdev
  // is gone. Throws std::system_error.
  std::optional<VfValues> get();

  struct Refused {
    VfPart part;
    netlink::Error error;
  };
  // Sets these parts, in this order, by one message. The kernel ends it at the first part that the
  // driver refuses, and does not say which: then each part is sent once more, by itself. Returns
  // those that are refused; a driver may also ignore a part, which only get() shows.
  std::vector<Refused> set(const VfValues& values, std::span<const VfPart> parts);

 private:
  netlink::Error send(const VfValues& values, std::span<const VfPart> parts);

  VfPlace place_;
  netlink::Socket socket_;
};

// One VF in a link's attributes, after netlink's header and ifinfomsg; nothing if it isn't there.
std::optional<VfValues> parseVf(std::span<const std::byte> attributes, unsigned number);

// With a socket in the calling thread's network namespace. Nothing if this function is not a VF, or
// its PF has no netdev here. Throws std::system_error.
std::optional<Vf> findVf(const std::string& sysfs, const std::string& pciAddress);

}  // namespace vdpa::datapath
