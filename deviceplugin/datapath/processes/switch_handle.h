// The switch of one resource, and the ports that it must have: each new process gets them.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "common/paths.h"
#include "common/port_policy.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {

// Who has which device. Called from any thread.
struct Holders {
  std::function<bool(const std::string& id)> unknown;      // in use, but its owner is not known
  std::function<std::string(const std::string& id)> name;  // for people
  // See WorkerHandle::unallocated.
  std::function<Task<uint64_t>(std::string id, std::chrono::milliseconds timeout)> unallocated;
};

// A port that a switch must have.
struct SwitchPort {
  PortSettings settings;
  PortPolicy policy = {};
};

class SwitchHandle {
 public:
  using Ports = std::map<std::string, SwitchPort>;  // by device ID

  // Adopts the resource's switch if one runs, else starts it. `ports` are those of the owner
  // records. A port of a running switch that is not in `ports` stays if its device is withheld.
  // `onChange` is called on the event thread when problem() may have changed.
  SwitchHandle(EventThread& thread, const Programs& programs, const Paths& paths,
               std::string resource, SwitchConfig config, Ports ports, Holders holders,
               std::function<void()> onChange);
  ~SwitchHandle();
  SwitchHandle(const SwitchHandle&) = delete;
  SwitchHandle& operator=(const SwitchHandle&) = delete;

  // The configuration in force. A new one takes effect at once while there are no ports, else when
  // the last port is removed: no pod loses packets for it.
  SwitchConfig config() const;
  void configure(const SwitchConfig& config);

  // From now on the limit of all ports, also of later ones. See PortPolicy.
  void limitStorms(unsigned stormLimit);

  // Throws RefusedError (aborted) while the switch is down, and if it is of a release that does not
  // know a requested setting and is not replaced in time.
  void addPort(const std::string& id, const SwitchPort& port);
  void removePort(const std::string& id);
  // The path of the port's private socket, which may not exist yet.
  std::string portSocket(const std::string& id) const;
  bool hasPorts() const;
  bool hasPort(const std::string& id) const;

  // As the switch reports them.
  Ports readPorts();
  std::vector<DeviceCounters> readCounters(const std::vector<std::string>& ids);
  struct Poller {
    std::optional<unsigned> core;  // absent: not pinned
    std::chrono::nanoseconds busy{0};
  };
  struct Statistics {
    std::vector<DeviceCounters> ports;
    std::vector<Poller> pollers;  // none: the switch is of 0.1.0
  };
  Statistics readStatistics(const std::vector<std::string>& ids, std::chrono::milliseconds timeout);

  bool waitUp(std::chrono::steady_clock::time_point deadline) const;
  SupervisedProcess::Status status() const;
  // Why its ports can't be used; empty while it works, and during upgrade().
  std::string problem() const;
  // Why this port alone can't be used.
  std::string portProblem(const std::string& id) const;
  // Why the switch ended the connection of the port's pod and closed the port, until that is open
  // again; empty: it didn't. The device is usable all the same.
  std::string offence(const std::string& id) const;
  // The current process.
  std::shared_ptr<SupervisedProcess> process() const;
  // Ends the process and starts the program that is installed now, with the same ports.
  // Packets of pods that were connected pass again after go(), or by themselves after a moment.
  void upgrade();
  void go();
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  // A port whose pod crashed the switch.
  struct Closure {
    unsigned crashes = 0;
    Clock::time_point until;
    std::string reason;  // empty: it is open again
  };

  void launch();
  Task<void> settle(SupervisedProcess& process);
  Task<void> put(std::string id, Clock::time_point deadline);
  Task<void> setPorts(std::vector<std::string> ids);
  Task<void> takeAway(std::string id);
  Task<void> change(control::Request request);
  Task<void> onRecovered(SupervisedProcess& process);
  bool closeCrasher(pid_t pid, bool outOfMemory);
  Task<void> nameUnallocated();
  void learnClosures(const control::PortList& list);
  void onEvent(const control::Event& event);
  control::Port newPort(const std::string& id, const SwitchPort& port) const REQUIRES(mutex_);
  void restart() REQUIRES(changing_);
  Task<void> onUp(SupervisedProcess& process, control::HelloAnswer hello, SwitchConfig launched);

  EventThread& thread_;
  const Programs programs_;
  const Paths paths_;
  const std::string resource_;
  const std::string name_;  // the resource's file name
  const Holders holders_;
  const std::function<void()> onChange_;
  Mutex changing_;  // serialises replacing the process; held while one stops
  SwitchConfig wanted_ GUARDED_BY(changing_);
  bool stopped_ GUARDED_BY(changing_) = false;
  mutable Mutex mutex_;  // held briefly
  Ports ports_ GUARDED_BY(mutex_);
  std::optional<unsigned> stormLimit_ GUARDED_BY(mutex_);       // once limitStorms() has set it
  std::map<std::string, Closure> closures_ GUARDED_BY(mutex_);  // by device ID
  // Of the switch that runs or starts.
  SwitchConfig config_ GUARDED_BY(mutex_);
  std::vector<unsigned> cores_ GUARDED_BY(mutex_);  // of its pollers; none: not pinned
  bool upgrading_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<SupervisedProcess> process_ GUARDED_BY(mutex_);
  // Why ports are closed for what their pods did, by device ID.
  std::map<std::string, std::string> offences_ GUARDED_BY(mutex_);

  // Used only by the event thread:
  bool ready_ = false;             // the switch has exactly the ports of ports_
  bool of010_ = false;             // it ignores the settings that 0.1.0 does not know
  std::set<std::string> present_;  // the ports that it has or is getting
  Notification becameReady_;
  Job naming_;
};

}  // namespace vdpa::datapath
