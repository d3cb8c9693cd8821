// Of Ports: the answers for the control channel.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/control_port.h"
#include "control.pb.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/ports/ports.h"

namespace vdpa::vswitch {

control::PortList Ports::describe() const {
  control::PortList list;
  for (const auto& [id, entry] : entries_) {
    auto& status = *list.add_ports();
    status.set_socket(entry->socket);
    status.set_connected(entry->connected);
    auto& settings = *status.mutable_port() = controlFromPort(id, entry->settings);
    if (!entry->closure) continue;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*entry->closedUntil - Clock::now());
    auto& closed = *settings.mutable_closed();
    closed.set_milliseconds(std::max<int64_t>(1, left.count()));
    closed.set_crashes(entry->closure->crashes);
    closed.set_reason(entry->closure->reason);
  }
  return list;
}

control::SwitchStats Ports::stats(const std::vector<std::string>& ids) const {
  control::SwitchStats stats;
  const auto addPort = [&](const Port& from) {
    auto& port = *stats.add_ports();
    const auto sum = [&](auto member) {
      uint64_t total = 0;
      for (const auto& each : from.counters) total += (each.*member).get();
      return total;
    };
    port.set_id(from.id);
    port.set_rx_packets(sum(&Counters::rxPackets));
    port.set_rx_bytes(sum(&Counters::rxBytes));
    port.set_tx_packets(sum(&Counters::txPackets));
    port.set_tx_bytes(sum(&Counters::txBytes));
    for (size_t reason = 0; reason < kDrops; ++reason) {
      auto& drop = *port.add_drops();
      drop.set_name(kDropNames[reason]);
      uint64_t total = 0;
      for (const auto& each : from.counters) total += each.drops[reason].get();
      drop.set_value(total);
    }
  };
  for (const auto& [id, entry] : entries_)
    if (ids.empty() || std::find(ids.begin(), ids.end(), id) != ids.end()) addPort(*entry->port);
  if (ids.empty() && uplink_) addPort(*uplink_);
  return stats;
}

}  // namespace vdpa::vswitch
