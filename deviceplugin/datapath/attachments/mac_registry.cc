#include "deviceplugin/datapath/attachments/mac_registry.h"

#include <fmt/core.h>

#include <cstddef>
#include <optional>
#include <set>
#include <string>

#include "common/mac_address.h"
#include "common/mutex.h"
#include "common/port_settings.h"
#include "common/vlan_ranges.h"
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

// Those in which the port has its MAC. 0 is that of a port without any.
VlanRanges::Set vlansOf(const PortSettings& port) {
  auto vlans = port.vlanTrunk.value_or(VlanRanges()).set();
  const unsigned untagged = port.vlan.value_or(0);
  if (untagged != 0 || vlans.none()) vlans.set(untagged);
  return vlans;
}

// The lowest VLAN of both.
std::optional<size_t> sharedVlan(const PortSettings& a, const PortSettings& b) {
  const auto shared = vlansOf(a) & vlansOf(b);
  for (size_t vlan = 0; vlan < shared.size(); ++vlan)
    if (shared.test(vlan)) return vlan;
  return std::nullopt;
}

// The frames for `holder` would go to `attachment`, which is another pod's.
bool losesMac(const Attachment& holder, const Attachment& attachment) {
  return holder.port.mac == attachment.port.mac && holder.resource == attachment.resource &&
         !samePod(holder.owner, attachment.owner) && sharedVlan(holder.port, attachment.port);
}

void refuse(const Attachment& attachment, const Attachment& holder) {
  throw RefusedError(
      Refusal::aborted,
      fmt::format("cannot attach {}: mac {} is already used in VLAN {} of {} by {} (device {}); "
                  "give this pod another one, or wait until that pod is gone",
                  attachment.deviceId, textOf(attachment.port.mac),
                  sharedVlan(holder.port, attachment.port).value_or(0), attachment.resource,
                  describeOwner(holder.owner), holder.deviceId));
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
