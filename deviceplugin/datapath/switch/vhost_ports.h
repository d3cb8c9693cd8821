// The switch's ports as rte_vhost sockets: who is connected, and the snapshots that follow from it.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "common/serving_page.h"
#include "control.pb.h"
#include "deviceplugin/datapath/dpdk/memory_guard.h"
#include "deviceplugin/datapath/dpdk/vhost_waker.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {

struct PortSettings {
  uint64_t mac = 0;
  uint16_t vlan = 0;
  unsigned mtu = 1500;
  bool linkUp = true;
  bool spoofCheck = false;
  bool trust = false;
  unsigned maxTxRate = 0;  // Mbit/s of what the pod sends; 0: no limit
};

// Methods are for the control thread; rte_vhost calls back on a thread of its own.
class VhostPorts {
 public:
  struct Options {
    std::string directory;  // of the sockets
    unsigned queuePairs = 1;
    unsigned pollers = 1;
    bool uplink = false;
    unsigned uplinkMtu = 1500;
  };
  // For the outside: called on either thread.
  struct Events {
    std::function<void(const std::string& id, bool connected, const std::string& reason)> connected;
    std::function<void(const std::string& id)> opened;  // a port that was closed
  };

  VhostPorts(Options options, Publisher& publisher, MacTable& table, StalledCalls& stalled,
             ServingPage& serving, Events events);
  ~VhostPorts();
  VhostPorts(const VhostPorts&) = delete;
  VhostPorts& operator=(const VhostPorts&) = delete;

  // rte_vhost has room for 1,024 sockets (MAX_FDS in lib/vhost/fd_man.h of DPDK 22.11): of each
  // port the one that listens and the one that is connected, the bell's two, and one of its own.
  static constexpr unsigned kMaxPorts = 510;

  // Of a port whose pod crashed an earlier switch. Kept here for a datapath that takes this over.
  struct Closure {
    std::chrono::milliseconds left{0};
    unsigned crashes = 0;
    std::string reason;
  };

  // The socket's path; with `closure` the socket itself appears later. Throws std::runtime_error
  // naming the port.
  std::string add(const std::string& id, const PortSettings& settings,
                  const std::optional<Closure>& closure);
  void set(const std::string& id, const PortSettings& settings);
  void remove(const std::string& id);
  // While held, what pods send stays in their rings; they connect and disconnect as always.
  void hold(bool held);
  std::vector<std::string> ids() const;

  control::PortList describe() const;  // every port with its settings
  // Of these ports; of all and the uplink if `ids` is empty. The pollers' time is not in it.
  control::SwitchStats stats(const std::vector<std::string>& ids) const;

  // Drop the connections whose memory has failed, and those that stalled a poller, and close their
  // ports for kPenalty, and for twice as long each next time: no pod stalls the others again and
  // again.
  int failureFd() const { return guard_.fd(); }
  void handleFailures();
  void handleStalls();
  // Opens the ports whose penalty is over.
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
    PortSettings settings;
    int vid = -1;
    uint64_t connectedSince = 0;  // the first snapshot with this vid
    // Of the control thread alone:
    std::optional<Clock::time_point> closedUntil;
    unsigned offences = 0;
    std::optional<Closure> closure;  // while it is closed for it
    std::vector<bool> enabled;       // by vring
    std::vector<Counters> counters;  // by poller
    RateLimit limit;
  };
  using Ports = std::map<std::string, std::unique_ptr<Port>>;  // by ID

  void close(const std::function<std::vector<int>()>& take, const char* offence,
             const char* reason);
  void returnAddress(const PortSettings& gone) REQUIRES(mutex_);
  // A file beside the socket that is missing meanwhile: "DEVICE.closed". Who looks for the devices
  // of this switch without asking it finds them all.
  std::string markOf(const Port& port) const;
  void markClosed(Port& port, std::chrono::milliseconds time);
  void registerSocket(Port& port);
  void unregisterSocket(const std::string& path);
  uint64_t publish() REQUIRES(mutex_);
  void fillWork(Snapshot& snapshot, Port& port) const REQUIRES(mutex_);
  // For the control thread, which reads without the lock: it alone adds and removes ports.
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
