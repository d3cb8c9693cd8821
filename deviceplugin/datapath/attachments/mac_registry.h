// Which attachment has which MAC: those of a DeviceTable have theirs, and an interface that is
// being attached claims one until it is among them. May be used from any thread.
#pragma once

#include <map>
#include <optional>

#include "common/mac_address.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

class MacRegistry {
 public:
  explicit MacRegistry(const DeviceTable& table) : table_(table) {}

  // One Attach's claim, until it ends: no other call is attaching that interface.
  class Claim {
   public:
    Claim(MacRegistry& registry, const Owner& owner) : registry_(registry), owner_(owner) {}
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    // The MAC for its port: `wanted`, or a default one that is unused on this node.
    MacAddress choose(const std::optional<MacAddress>& wanted);
    // From now on only this attachment has its MAC in its resource and VLAN. Throws RefusedError
    // (aborted) if another pod that still exists has it.
    void hold(const Attachment& attachment);

   private:
    MacRegistry& registry_;
    const Owner& owner_;
  };

 private:
  struct Claimed {
    std::optional<MacAddress> mac;
    std::optional<Attachment> holder;  // of the MAC in its resource and VLAN
  };
  MacAddress unusedMac(const Owner& owner) const REQUIRES(mutex_);

  const DeviceTable& table_;  // its lock is taken under ours
  Mutex mutex_;
  std::map<AttachmentKey, Claimed> claims_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::datapath
