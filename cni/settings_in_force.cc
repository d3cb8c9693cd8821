#include "cni/settings_in_force.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "common/port_settings.h"
#include "common/version.h"

namespace vdpa::cni {
namespace {

PortSettings settingsOf(const datapath::v1::Settings& message) {
  return settingsFromMessage(message, [](const std::string&) {
    // A word of a later datapath: the setting is there, which is all that matters here.
  });
}

// The keys that are set in `asked` but not in `answered`.
std::vector<std::string> absentKeys(const PortSettings& asked, const PortSettings& answered) {
  std::vector<std::string> absent;
  forEachSetting(
      [&](const Setting& setting, const auto& wanted, const auto& found) {
        if (wanted && !found) absent.emplace_back(setting.key);
      },
      asked, answered);
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
  require(absentKeys(settingsOf(request.settings()), settingsOf(response.attachment().settings())),
          response);
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
