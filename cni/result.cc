// See the header.
#include "cni/result.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>

#include "cni/error.h"
#include "cni/json_keys.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

constexpr Version kDropsIpVersion{1, 0, 0};
constexpr Version kTellsMtuAndSocket{1, 1, 0};

// 4 or 6 for "10.0.0.1/24" and its like; 0 for anything else.
int addressFamily(const std::string& address) {
  const auto slash = address.find('/');
  if (slash == std::string::npos) return 0;
  const std::string host = address.substr(0, slash);
  int length = -1;
  const char* end = address.data() + address.size();
  const auto parsed = std::from_chars(address.data() + slash + 1, end, length);
  if (parsed.ec != std::errc() || parsed.ptr != end || length < 0) return 0;
  unsigned char buffer[16];
  if (length <= 32 && ::inet_pton(AF_INET, host.c_str(), buffer) == 1) return 4;
  if (length <= 128 && ::inet_pton(AF_INET6, host.c_str(), buffer) == 1) return 6;
  return 0;
}

bool isPciAddress(const std::string& id) {
  unsigned domain, bus, device, function;
  int length = 0;
  return std::sscanf(id.c_str(), "%4x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &length) ==
             4 &&
         static_cast<size_t>(length) == id.size();
}

json interfaceOf(const NetworkConfig& network, const Environment& environment,
                 const datapath::v1::Attachment& attachment) {
  json interface {
    {"name", environment.interface}, {"mac", attachment.settings().mac()}, {
      "sandbox", environment.netns
    }
  };
  if (network.version >= kTellsMtuAndSocket) {
    interface["mtu"] = attachment.settings().mtu();
    interface["socketPath"] = attachment.socket();
    if (isPciAddress(attachment.device_id())) interface["pciID"] = attachment.device_id();
  }
  return interface;
}

}  // namespace

std::vector<std::string> addressesOf(const json& ipam, const std::string& type) {
  std::vector<std::string> addresses;
  if (ipam.is_object())
    for (const auto& ip : arrayAt(ipam, "ips")) {
      const std::string address = ip.is_object() ? stringAt(ip, "address") : "";
      if (addressFamily(address) == 0)
        throw Error(
            Code::ipamFailed,
            fmt::format("IPAM plugin '{}' gave '{}', which is not an address with a prefix length",
                        type, address.empty() ? ip.dump() : address));
      addresses.push_back(address);
    }
  if (addresses.empty())
    throw Error(Code::ipamFailed, fmt::format("IPAM plugin '{}' gave no address", type));
  return addresses;
}

json makeResult(const NetworkConfig& network, const Environment& environment,
                const datapath::v1::Attachment& attachment, const json& ipam) {
  json result = network.prevResult.value_or(json::object());
  result["cniVersion"] = network.cniVersion;
  json interfaces = arrayAt(result, "interfaces");
  const size_t index = interfaces.size();
  interfaces.push_back(interfaceOf(network, environment, attachment));
  result["interfaces"] = interfaces;
  if (!ipam.is_object()) return result;

  json ips = arrayAt(result, "ips");
  for (json ip : arrayAt(ipam, "ips")) {
    ip["interface"] = index;
    if (network.version < kDropsIpVersion)
      ip["version"] = addressFamily(stringAt(ip, "address")) == 6 ? "6" : "4";
    else
      ip.erase("version");
    ips.push_back(ip);
  }
  result["ips"] = ips;
  json routes = arrayAt(result, "routes");
  for (const auto& route : arrayAt(ipam, "routes")) routes.push_back(route);
  if (!routes.empty()) result["routes"] = routes;
  const json dns = objectAt(ipam, "dns");
  if (!dns.empty()) result["dns"] = dns;
  return result;
}

}  // namespace vdpa::cni
