// Reports pods' offences, which end their connections, from the pollers to the control thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace vdpa::vswitch {

enum class Offence : uint8_t {
  kNone,
  kRing,        // its ring's fault() says what
  kCallBlocks,  // a write to its call eventfd had to be interrupted
  kKickStalls,  // its kick eventfd has stalled a poller that began or ended to watch it
  kMemory,      // it took away memory that it shares (reported by the signal handler)
};

class Offences {
 public:
  Offences();

  // From any thread, also from a signal handler. Doesn't block. The first offence of a port stands.
  void report(MacTable::Port port, Offence offence);

  // --- the control thread
  int fd() const { return alarm_.get(); }  // readable after a report
  struct Report {
    MacTable::Port port;
    Offence offence;
  };
  std::vector<Report> take();  // clears fd()
  // Call when nothing of the port is left: its number will be reused.
  void forget(MacTable::Port port) { reported_[port] = 0; }

 private:
  UniqueFd alarm_;
  std::array<std::atomic<uint8_t>, MacTable::kMaxPorts> reported_{};
};

}  // namespace vdpa::vswitch
