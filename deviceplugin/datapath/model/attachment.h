// An attachment: the use of a device by one container's interface.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "deviceplugin/datapath/model/owner.h"

namespace vdpa::datapath {

// The settings that a network's configuration requests; an absent value requests nothing.
struct Settings {
  std::string mac;
  std::optional<unsigned> vlan;
  std::optional<unsigned> vlanQos;
  std::string vlanProto;
  std::optional<bool> spoofCheck;
  std::optional<bool> trust;
  std::string linkState;
  std::optional<unsigned> minTxRate;
  std::optional<unsigned> maxTxRate;
  unsigned mtu = 0;
};

// The settings in force. A setting that the backend can't change has the device's own value.
struct PortSettings {
  std::string mac;  // lower case
  unsigned vlan = 0;
  unsigned vlanQos = 0;
  std::string vlanProto = "802.1q";
  unsigned mtu = 1500;
  std::string linkState = "auto";  // auto | enable | disable
  bool spoofCheck = false;
  bool trust = false;
  unsigned minTxRate = 0;  // Mbit/s; 0: none
  unsigned maxTxRate = 0;  // Mbit/s; 0: no limit

  bool operator==(const PortSettings&) const = default;
};

struct Attachment {
  std::string deviceId;
  std::string resource;
  Owner owner;
  PortSettings port;
  std::string socket;  // what the application opens, as the pod sees it; empty: a netdev
  unsigned queuePairs = 1;
  unsigned queueSize = 256;
  std::vector<std::string> ips;  // with prefix length
  int64_t created = 0;           // seconds since 1970
};

}  // namespace vdpa::datapath
