#include "deviceplugin/datapath/attachments/interface_claim.h"

#include <fmt/core.h>

#include <string>

#include "common/mutex.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {

InterfaceClaim::InterfaceClaim(DeviceTable& table, const Owner& owner, const std::string& deviceId)
    : table_(table), owner_(owner) {
  checkOwner(owner);
  const auto refuse = [&](const std::string& id) {
    throw RefusedError(Refusal::alreadyExists,
                       fmt::format("interface {} of container {} already has {}; detach it first",
                                   owner.interface, owner.containerId, id));
  };
  Lock lock(table_.mutex_);
  if (table_.closed_)
    throw RefusedError(Refusal::aborted, fmt::format("cannot attach {}: {}", deviceId, kDrained));
  for (const auto& [id, entry] : table_.entries_)
    if (entry.record && entry.record->attachment.owner.key() == owner.key()) refuse(id);
  const auto [pending, added] =
      table_.pending_.try_emplace(owner.key(), DeviceTable::Pending{deviceId});
  if (!added) refuse(pending->second.deviceId);
}

InterfaceClaim::~InterfaceClaim() {
  {
    Lock lock(table_.mutex_);
    table_.pending_.erase(owner_.key());
  }
  table_.changed_.notifyAll();
}

}  // namespace vdpa::datapath
