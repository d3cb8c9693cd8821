#include "deviceplugin/datapath/model/owner.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>

#include "common/attachment_limits.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

void require(bool condition, const char* field, const std::string& value, const char* expected) {
  if (!condition)
    throw RefusedError(Refusal::invalidArgument,
                       fmt::format("owner.{} '{}': expected {}", field, value, expected));
}

bool isContainerId(const std::string& id) {
  if (id.empty() || !std::isalnum(static_cast<unsigned char>(id[0]))) return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  });
}

// The kernel's rules for a netdev's name.
bool isInterface(const std::string& name) {
  if (name.empty() || name.size() > 15 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(), [](unsigned char c) {
    return c == '/' || c == ':' || std::isspace(c) || !std::isprint(c);
  });
}

}  // namespace

void checkOwner(const Owner& owner) {
  require(isContainerId(owner.containerId), "container_id", owner.containerId,
          "letters, digits, '_', '.' and '-'");
  require(isInterface(owner.interface), "interface", owner.interface,
          "the name of a network interface, at most 15 bytes");
  require(owner.netns.starts_with('/'), "netns", owner.netns,
          "the path of a network namespace such as /var/run/netns/x");
  require(owner.network.size() <= kMaxNetworkName, "network", owner.network.substr(0, 40),
          "at most 253 bytes");
}

std::string describeOwner(const Owner& owner) {
  constexpr size_t kShown = 12;
  const std::string container = owner.containerId.size() <= kShown
                                    ? owner.containerId
                                    : owner.containerId.substr(0, kShown) + "…";
  std::string what = fmt::format("container {}, interface {}", container, owner.interface);
  if (owner.podName.empty()) return what;
  return fmt::format("{}/{} ({})", owner.podNamespace, owner.podName, what);
}

}  // namespace vdpa::datapath
