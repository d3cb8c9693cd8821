#include "cni/settings_in_force.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "common/version.h"

namespace vdpa::cni {
namespace {

// The keys that are set in `asked` but not in `answered`.
std::vector<std::string> absentKeys(const datapath::v1::Settings& asked,
                                    const datapath::v1::Settings& answered) {
  struct Key {
    const char* name;
    bool asked, answered;
  };
  const Key keys[] = {
      {"mac", !asked.mac().empty(), !answered.mac().empty()},
      {"vlan", asked.has_vlan(), answered.has_vlan()},
      {"vlanQoS", asked.has_vlan_qos(), answered.has_vlan_qos()},
      {"vlanProto", !asked.vlan_proto().empty(), !answered.vlan_proto().empty()},
      {"spoofchk", asked.has_spoof_check(), answered.has_spoof_check()},
      {"trust", asked.has_trust(), answered.has_trust()},
      {"link_state", !asked.link_state().empty(), !answered.link_state().empty()},
      {"min_tx_rate", asked.has_min_tx_rate(), answered.has_min_tx_rate()},
      {"max_tx_rate", asked.has_max_tx_rate(), answered.has_max_tx_rate()},
      {"mtu", asked.mtu() != 0, answered.mtu() != 0},
  };
  std::vector<std::string> absent;
  for (const auto& key : keys)
    if (key.asked && !key.answered) absent.push_back(key.name);
  return absent;
}

// The datapath reports unknown fields by number only.
template <typename Response>
void require(std::vector<std::string> absent, const Response& response) {
  if (absent.empty())
    for (const auto& field : response.receiver().unknown_fields())
      absent.push_back("field " + field);
  if (absent.empty()) return;
  const bool one = absent.size() == 1;
  const std::string names = fmt::format("{}", fmt::join(absent, ", "));
  throw Error(
      Code::invalidConfig,
      fmt::format("{} {} not in force on {}: vdpa-datapath {} does not know {}, this CNI plugin {} "
                  "does",
                  names, one ? "is" : "are", response.attachment().device_id(),
                  response.has_receiver() ? response.receiver().version() : "0.1.0",
                  one ? "it" : "them", programVersion()),
      fmt::format("update vdpa-datapath on this node (delete its pod), or remove {} from the "
                  "network's configuration",
                  names));
}

}  // namespace

void requireInForce(const datapath::v1::AttachRequest& request,
                    const datapath::v1::AttachResponse& response) {
  require(absentKeys(request.settings(), response.attachment().settings()), response);
}

void requireInForce(const datapath::v1::SetAddressesRequest& request,
                    const datapath::v1::SetAddressesResponse& response) {
  const auto& asked = request.ips();
  const auto& answered = response.attachment().ips();
  std::vector<std::string> absent;
  if (!std::equal(asked.begin(), asked.end(), answered.begin(), answered.end()))
    absent.push_back("ips");
  require(std::move(absent), response);
}

}  // namespace vdpa::cni
