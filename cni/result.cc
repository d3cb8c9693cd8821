#include "cni/result.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cni/environment.h"
#include "cni/error.h"
#include "cni/json_object.h"
#include "cni/network_config.h"
#include "common/attachment_limits.h"
#include "common/naming.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

constexpr Version kDropsIpVersion{1, 0, 0};
constexpr Version kTellsMtuAndSocket{1, 1, 0};

void requireAtMost(size_t most, size_t count, const char* what, const std::string& type) {
  if (count > most)
    throw Error(Code::ipamFailed,
                fmt::format("IPAM plugin '{}' returned {} {}; at most {} are possible", type, count,
                            what, most));
}

// 4 or 6 for an address such as "10.0.0.1/24"; 0 for anything else.
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

std::string lowerCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
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
    if (hasSocket(attachment)) interface["socketPath"] = attachment.socket();
    if (isPciAddress(attachment.device_id())) interface["pciID"] = attachment.device_id();
  }
  return interface;
}

}  // namespace

bool hasSocket(const datapath::v1::Attachment& attachment) {
  return attachment.socket() == podSocket(attachment.device_id());
}

std::vector<datapath::v1::Route> routesOf(const json& ipam, const std::string& type) {
  std::vector<datapath::v1::Route> routes;
  if (!ipam.is_object()) return routes;
  const JsonObject answer(ipam, fmt::format("IPAM plugin '{}': ", type), Code::ipamFailed);
  requireAtMost(kMaxRoutes, answer.list("routes").size(), "routes", type);
  std::map<int, std::string> gateways;  // by family
  for (const auto& ip : answer.objects("ips"))
    if (const auto gateway = ip.string("gateway"); !gateway.empty())
      gateways.emplace(addressFamily(ip.string("address")), gateway);
  for (const auto& given : answer.objects("routes")) {
    datapath::v1::Route route;
    route.set_destination(given.string("dst"));
    const int family = addressFamily(route.destination());
    if (family == 0)
      throw Error(Code::ipamFailed,
                  fmt::format("IPAM plugin '{}' returned a route to '{}', which is not an address "
                              "with a prefix length",
                              type, excerpt(route.destination(), 60)));
    route.set_gateway(given.string("gw", gateways[family]));
    route.set_mtu(given.number("mtu", 0, INT32_MAX).value_or(0));
    route.set_advmss(given.number("advmss", 0, INT32_MAX).value_or(0));
    route.set_priority(given.number("priority", 0, INT32_MAX).value_or(0));
    if (const auto table = given.number("table", 0, UINT32_MAX)) route.set_table(*table);
    if (const auto scope = given.number("scope", 0, 255)) route.set_scope(*scope);
    routes.push_back(std::move(route));
  }
  return routes;
}

std::vector<std::string> addressesOf(const json& ipam, const std::string& type) {
  const std::string plugin = fmt::format("IPAM plugin '{}'", type);
  std::vector<std::string> addresses;
  if (ipam.is_object()) {
    const JsonObject answer(ipam, plugin + ": ", Code::ipamFailed);
    requireAtMost(kMaxAddresses, answer.list("ips").size(), "addresses", type);
    for (const auto& ip : answer.objects("ips")) {
      const std::string address = ip.string("address");
      if (addressFamily(address) == 0)
        throw Error(Code::ipamFailed,
                    fmt::format("{} returned '{}', which is not an address with a prefix length",
                                plugin, excerpt(address, 60)));
      addresses.push_back(address);
    }
    answer.objects("routes");
    answer.object("dns");
  }
  if (addresses.empty()) throw Error(Code::ipamFailed, plugin + " returned no address");
  return addresses;
}

json makeResult(const NetworkConfig& network, const Environment& environment,
                const datapath::v1::Attachment& attachment, const json& ipam) {
  json result = network.prevResult.value_or(json::object());
  const JsonObject before(result, "prevResult.");
  json interfaces = before.list("interfaces"), ips = before.list("ips"),
       routes = before.list("routes");
  const size_t index = interfaces.size();
  interfaces.push_back(interfaceOf(network, environment, attachment));
  result["cniVersion"] = network.cniVersion;
  result["interfaces"] = interfaces;

  if (ipam.is_object()) {
    const JsonObject given(ipam);
    for (json ip : given.list("ips")) {
      ip["interface"] = index;
      if (network.version < kDropsIpVersion)
        ip["version"] = addressFamily(ip.at("address")) == 6 ? "6" : "4";
      else
        ip.erase("version");
      ips.push_back(ip);
    }
    for (const auto& route : given.list("routes")) routes.push_back(route);
    result["ips"] = ips;
    if (!routes.empty()) result["routes"] = routes;
    if (const json& dns = given.object("dns").json(); !dns.empty()) result["dns"] = dns;
  }
  return result;
}

Comparison compareResult(const json& prevResult, const Environment& environment,
                         const datapath::v1::Attachment& attachment) {
  const JsonObject result(prevResult, "prevResult.");
  const std::string& mac = attachment.settings().mac();
  Comparison comparison;
  const auto differ = [&](const std::string& what, const std::string& reported,
                          const std::string& is) {
    comparison.differences.push_back(
        fmt::format("{} is {}; prevResult says '{}'", what, is, excerpt(reported, 60)));
  };

  // Other plugins of a chain may have an interface of this name: ours has our MAC.
  const auto interfaces = result.objects("interfaces");
  std::optional<size_t> ours;
  for (size_t i = 0; i < interfaces.size(); ++i)
    if (interfaces[i].string("name") == environment.interface &&
        (!ours || lowerCase(interfaces[i].string("mac")) == mac))
      ours = i;
  if (!ours) {
    comparison.differences.push_back(
        fmt::format("prevResult has no interface {}", environment.interface));
    return comparison;
  }
  const JsonObject& found = interfaces[*ours];
  auto& reported = comparison.reported;
  reported.mac = lowerCase(found.string("mac"));
  reported.mtu = found.number("mtu", 0, 65535).value_or(0);
  if (!attachment.socket().empty()) {
    if (reported.mac != mac) differ("mac", reported.mac, mac);
    if (reported.mtu != 0 && reported.mtu != attachment.settings().mtu())
      differ("mtu", std::to_string(reported.mtu), std::to_string(attachment.settings().mtu()));
  }
  if (const auto path = found.string("socketPath"); !path.empty() && path != attachment.socket())
    differ("socketPath", path, attachment.socket());
  for (const auto& ip : result.objects("ips"))
    if (ip.number("interface", 0, UINT16_MAX) == *ours)
      reported.ips.push_back(ip.string("address"));
  return comparison;
}

}  // namespace vdpa::cni
