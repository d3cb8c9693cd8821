#include "deviceplugin/datapath/switch/forwarding/lookup.h"

#include <atomic>
#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/origin.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"

namespace vdpa::vswitch {
namespace {

constexpr uint64_t kGroupBit = 1ull << 40;  // of the first octet: multicast or broadcast

}  // namespace

bool Lookup::isSpoofed(const Origin& from, uint64_t sender, uint16_t vlan) const {
  if (sender & kGroupBit) return true;
  if (!from.view.spoofCheck || sender == from.view.mac) return false;
  return !from.view.trust || table_.belongsToOther(sender, vlan, from.port.number);
}

Verdict Lookup::decide(const Origin& from, const AddressPair& pair, uint32_t seconds) {
  const uint64_t sender = pair.source();
  if (isSpoofed(from, sender, pair.vlan())) {
    from.memo.note(pair, kSpoofed);
    return kSpoofed;
  }
  table_.learn(sender, pair.vlan(), from.port.number, seconds);
  const Verdict verdict = find(from, pair, seconds);
  // A newly learned address does not change the table's count, so an unknown one is looked up
  // again.
  if (verdict != kToAll || pair.toGroup()) from.memo.note(pair, verdict);
  return verdict;
}

Verdict Lookup::find(const Origin& from, const AddressPair& pair, uint32_t seconds) const {
  if (pair.toGroup()) return kToAll;
  const MacTable::Port number = table_.lookup(pair.destination(), pair.vlan(), seconds);
  if (number == MacTable::kNoPort) return kToAll;
  if (number == from.port.number) return kNowhere;
  const Port* to = ports_.find(number);
  if (!to) return kToAll;
  if (number == kUplinkPort) return number;  // has all VLANs
  return isMember(*to->view.load(std::memory_order_acquire), pair.vlan()) ? number : kToAll;
}

}  // namespace vdpa::vswitch
