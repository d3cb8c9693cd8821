#include "deviceplugin/datapath/attachments/mac_registry.h"

#include <fmt/core.h>

#include <optional>
#include <set>
#include <string>

#include "common/mac_address.h"
#include "common/mutex.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/default_mac.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/netlink/network_namespace.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

bool samePod(const Owner& a, const Owner& b) {
  return a.containerId == b.containerId ||
         (!a.podName.empty() && a.podName == b.podName && a.podNamespace == b.podNamespace);
}

// The frames for `holder` would go to `attachment`, which is another pod's.
bool losesMac(const Attachment& holder, const Attachment& attachment) {
  return holder.port.mac == attachment.port.mac && holder.port.vlan == attachment.port.vlan &&
         holder.resource == attachment.resource && !samePod(holder.owner, attachment.owner);
}

void refuse(const Attachment& attachment, const Attachment& holder) {
  throw RefusedError(
      Refusal::aborted,
      fmt::format("cannot attach {}: mac {} is already used in VLAN {} of {} by {} (device {}); "
                  "give this pod another one, or wait until that pod is gone",
                  attachment.deviceId, textOf(attachment.port.mac), textOf(attachment.port.vlan),
                  attachment.resource, describeOwner(holder.owner), holder.deviceId));
}

}  // namespace

MacRegistry::Claim::~Claim() {
  Lock lock(registry_.mutex_);
  registry_.claims_.erase(owner_.key());
}

MacAddress MacRegistry::Claim::choose(const std::optional<MacAddress>& wanted) {
  Lock lock(registry_.mutex_);
  const MacAddress mac = wanted ? *wanted : registry_.unusedMac(owner_);
  registry_.claims_[owner_.key()].mac = mac;
  return mac;
}

void MacRegistry::Claim::hold(const Attachment& attachment) {
  Lock lock(registry_.mutex_);
  const auto holder = registry_.table_.findRecord([&](const OwnerRecord& record) {
    return losesMac(record.attachment, attachment) && record.phase != Phase::detaching &&
           !namespaceGone(record.attachment.owner.netns, record.netns);
  });
  if (holder) refuse(attachment, holder->attachment);
  for (const auto& [key, claimed] : registry_.claims_)
    if (claimed.holder && losesMac(*claimed.holder, attachment))
      refuse(attachment, *claimed.holder);
  registry_.claims_[owner_.key()].holder = attachment;
}

MacAddress MacRegistry::unusedMac(const Owner& owner) const {
  std::set<MacAddress> claimed;
  for (const auto& [key, claim] : claims_)
    if (claim.mac) claimed.insert(*claim.mac);
  return defaultMac(owner, [&](const MacAddress& mac) {
    return claimed.contains(mac) || table_.findRecord([&](const OwnerRecord& record) {
      return record.attachment.port.mac == mac;
    });
  });
}

}  // namespace vdpa::datapath
