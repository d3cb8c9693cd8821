#include "deviceplugin/datapath/switch/forwarding/port.h"

#include <atomic>
#include <cstdint>

namespace vdpa::vswitch {

PortTable::PortTable() = default;

PortTable::~PortTable() {
  for (auto& members : members_) delete members.load(std::memory_order_relaxed);
}

void PortTable::add(Port& port) {
  ports_[port.number].store(&port, std::memory_order_release);
  changed();
}

void PortTable::remove(const Port& port) {
  ports_[port.number].store(nullptr, std::memory_order_release);
  changed();
}

PortTable::Members PortTable::setMembers(uint16_t vlan, Members members) {
  changed();
  return Members(members_[vlan].exchange(members.release(), std::memory_order_acq_rel));
}

}  // namespace vdpa::vswitch
