// Used when the memo has no entry for a pair of addresses: decides whether the sender may use its
// address, and finds the port of the destination.
#pragma once

#include <cstdint>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/origin.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"

namespace vdpa::vswitch {

class Lookup {
 public:
  Lookup(MacTable& table, const PortTable& ports) : table_(table), ports_(ports) {}

  // Notes the verdict in the memo, and the sender's address in the table. `seconds` is the table's
  // clock.
  Verdict decide(const Origin& from, const AddressPair& pair, uint32_t seconds);

 private:
  bool isSpoofed(const Origin& from, uint64_t sender, uint16_t vlan) const;
  Verdict find(const Origin& from, const AddressPair& pair, uint32_t seconds) const;

  MacTable& table_;
  const PortTable& ports_;
};

}  // namespace vdpa::vswitch
