// The result of ADD, in the configuration's version.
#pragma once

#include <string>
#include <vector>

#include "cni/environment.h"
#include "cni/network_config.h"
#include "common/json.h"
#include "datapath.pb.h"

namespace vdpa::cni {

// Whether the pod has a socket of it, rather than the kernel's device itself.
bool hasSocket(const datapath::v1::Attachment& attachment);

// The routes of an IPAM answer; a route without a gateway gets its family's.
std::vector<datapath::v1::Route> routesOf(const nlohmann::json& ipam, const std::string& type);

// prevResult (if any), then our interface, then the addresses, routes and DNS of `ipam` (null
// without IPAM).
nlohmann::json makeResult(const NetworkConfig& network, const Environment& environment,
                          const datapath::v1::Attachment& attachment, const nlohmann::json& ipam);

// The addresses of an IPAM answer, with prefix length. Throws Error naming the plugin if there is
// none, one is malformed, or a part of the result has another type than the specification's.
std::vector<std::string> addressesOf(const nlohmann::json& ipam, const std::string& type);

// Our interface in `prevResult`, the result of the chain's ADD, and where the attachment differs.
// A netdev's MAC and MTU are not compared here: later plugins of the chain may change them.
struct Comparison {
  struct Reported {
    std::string mac;   // lower case
    unsigned mtu = 0;  // 0: not given
    std::vector<std::string> ips;
    bool operator==(const Reported&) const = default;
  };
  std::vector<std::string> differences;
  Reported reported;
};
Comparison compareResult(const nlohmann::json& prevResult, const Environment& environment,
                         const datapath::v1::Attachment& attachment);

}  // namespace vdpa::cni
