// The switch's ports as rte_vhost sockets: tracks the connections and publishes snapshots of the
// ports.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "control.pb.h"
#include "deviceplugin/datapath/dpdk/memory_guard.h"
#include "deviceplugin/datapath/dpdk/vhost_waker.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {

// For the control thread only; rte_vhost calls back on its own thread.
class VhostPorts {
 public:
  struct Options {
    std::string directory;  // of the sockets
    unsigned queuePairs = 1;
    unsigned pollers = 1;
    bool uplink = false;
    unsigned uplinkMtu = 1500;
  };
  // Notifications, called on either thread.
  struct Events {
    std::function<void(const std::string& id, bool connected, const std::string& reason)> connected;
    std::function<void(const std::string& id)> opened;  // a closed port is open again
  };

  VhostPorts(Options options, Publisher& publisher, MacTable& table, StalledCalls& stalled,
             ServingPage& serving, Events events);
  ~VhostPorts();
  VhostPorts(const VhostPorts&) = delete;
  VhostPorts& operator=(const VhostPorts&) = delete;

  // rte_vhost has room for 1,024 descriptors (MAX_FDS in lib/vhost/fd_man.h of DPDK 22.11): each
  // port's listening and connected socket, the bell's two, and one of its own.
  static constexpr unsigned kMaxPorts = 510;

  // Why a port is closed: its pod crashed an earlier switch. Kept for a datapath that adopts this
  // switch.
  struct Closure {
    std::chrono::milliseconds left{0};
    unsigned crashes = 0;
    std::string reason;
  };

  // Returns the socket's path; with `closure` the socket itself appears later. `settings` has a
  // value for each setting. Throws std::runtime_error naming the port.
  std::string add(const std::string& id, const PortSettings& settings,
                  const std::optional<Closure>& closure);
  void set(const std::string& id, const PortSettings& settings);
  void remove(const std::string& id);
  // While held, frames from pods stay in their rings; pods can still connect and disconnect.
  void hold(bool held);
  std::vector<std::string> ids() const;

  control::PortList describe() const;  // every port with its settings
  // Of these ports; of all and the uplink if `ids` is empty. The pollers' time is not in it.
  control::SwitchStats stats(const std::vector<std::string>& ids) const;

  // Drop the connections whose memory has failed, and those that stalled a poller, and close their
  // ports for kPenalty, doubled each time, so that no pod can keep stalling the others.
  int failureFd() const { return guard_.fd(); }
  void handleFailures();
  void handleStalls();
  // Opens the ports whose time is over.
  void openDue();
  int untilNextOpening() const;  // ms, for poll(); -1: no port is closed

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kPenalty{5};
  static constexpr unsigned kMaxDoublings = 6;

  struct Port {
    Port();
    void use(const PortSettings& next);

    std::string id;
    std::string socket;
    MacTable::Port number = 0;
    PortSettings settings;  // all of them
    int vid = -1;
    uint64_t connectedSince = 0;  // sequence of the first snapshot with this vid
    // Only for the control thread:
    std::optional<Clock::time_point> closedUntil;
    unsigned offences = 0;
    std::optional<Closure> closure;  // while the port is closed because of it
    std::vector<bool> enabled;       // by vring
    std::vector<Counters> counters;  // by poller
    RateLimit limit;
  };
  using Ports = std::map<std::string, std::unique_ptr<Port>>;  // by ID

  void close(const std::function<std::vector<int>()>& take, const char* offence,
             const char* reason);
  void addAddress(const Port& port);
  void returnAddress(const PortSettings& gone) REQUIRES(mutex_);
  // Path of a file "DEVICE.closed", which stands in for the missing socket of a closed port, so
  // that all ports of this switch can be found without asking it.
  std::string markOf(const Port& port) const;
  void markClosed(Port& port, std::chrono::milliseconds time);
  void registerSocket(Port& port);
  void unregisterSocket(const std::string& path);
  uint64_t publish() REQUIRES(mutex_);
  void fillWork(Snapshot& snapshot, Port& port) const REQUIRES(mutex_);
  // For the control thread, which needs no lock to read: only it adds and removes ports.
  const Ports& controlPorts() const NO_THREAD_SAFETY_ANALYSIS { return ports_; }
  Port& find(const std::string& id);
  Port* findSocket(int vid) REQUIRES(mutex_);
  std::vector<std::string> idsOf(const std::vector<int>& vids) const REQUIRES(mutex_);
  MacTable::Port freeNumber() const REQUIRES(mutex_);

  int onNewDevice(int vid);
  void onDestroyDevice(int vid);
  void onVringState(int vid, uint16_t vring, bool enabled);
  int onNewConnection(int vid);
  friend struct VhostCallbacks;

  Options options_;
  dpdk::VhostWaker waker_;
  Publisher& publisher_;
  MacTable& table_;
  StalledCalls& stalled_;
  ServingPage& serving_;
  const Events events_;
  dpdk::MemoryGuard guard_;
  mutable Mutex mutex_;
  bool held_ GUARDED_BY(mutex_) = false;
  Ports ports_ GUARDED_BY(mutex_);
  std::vector<Counters> uplinkCounters_;
};

}  // namespace vdpa::vswitch
