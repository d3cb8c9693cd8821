// The switch's ports: their settings, sockets and connections, and what the pollers see of them.
#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/log_limiter.h"
#include "common/port_policy.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "control.pb.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/ports/capacity.h"
#include "deviceplugin/datapath/switch/ports/closer.h"
#include "deviceplugin/datapath/switch/ports/connection.h"
#include "deviceplugin/datapath/switch/ports/port_view.h"

namespace vdpa::vswitch {

// For the control thread.
class Ports {
 public:
  struct Options {
    std::string directory;  // of the sockets
    unsigned queuePairs = 1;
    bool uplink = false;
    unsigned uplinkMtu = 1500;
    uint64_t cyclesPerSecond = 0;
  };
  // Must outlive the ports.
  struct Shared {
    EventLoop& loop;
    Epoch& epoch;
    PortTable& ports;
    MacTable& table;
    Offences& offences;
    ServingPage& serving;
    std::span<const std::unique_ptr<Poller>> pollers;
  };
  struct Events {
    std::function<void(const std::string& id, bool connected, const std::string& reason)> connected;
    std::function<void(const std::string& id)> opened;  // a closed port is open again
  };

  Ports(Options options, Shared shared, Events events);
  // Call end() first. Removes the sockets.
  ~Ports();
  Ports(const Ports&) = delete;
  Ports& operator=(const Ports&) = delete;

  // The reason why a port is closed: its pod crashed an earlier switch. Kept for a datapath that
  // adopts this switch.
  struct Closure {
    std::chrono::milliseconds left{0};
    unsigned crashes = 0;
    std::string reason;
  };

  // Returns the socket's path; with `closure` the socket itself appears later. `settings` has a
  // value for each setting. Throws std::runtime_error naming the port.
  std::string add(const std::string& id, const PortSettings& settings, const PortPolicy& policy,
                  const std::optional<Closure>& closure);
  // Offloads are offered, or not, from the next connection on.
  void set(const std::string& id, const PortSettings& settings, const PortPolicy& policy);
  // The socket is gone when it returns; its pod's connection is closed as soon as the pollers have
  // passed.
  void remove(const std::string& id);
  // While held, frames from pods stay in their rings; pods can still connect and disconnect. Takes
  // effect with a pass.
  void hold(bool held);
  // Writes the port's frames to `memory` until the other end of `pipe` is closed, or the port is
  // removed; `pipe` is closed then, after the last frame. Throws std::exception with the reason
  // why not.
  void capture(const std::string& id, uint32_t snapLength, UniqueFd memory, UniqueFd pipe);
  // Takes all ports from the pollers for good. Next, end the pollers and call Epoch::runAll().
  void end();
  std::vector<std::string> ids() const;

  control::PortList describe() const;  // every port with its settings
  // Of these ports; of all and the uplink if `ids` is empty. The pollers' time is not in it.
  control::SwitchStats stats(const std::vector<std::string>& ids) const;

 private:
  using Clock = std::chrono::steady_clock;
  // A pod that breaks the rules loses its connection, and its port is closed for this long, doubled
  // each time, so that it can't keep disturbing the others.
  static constexpr std::chrono::seconds kPenalty{5};
  static constexpr unsigned kMaxDoublings = 6;
  // Of a socket that can't be opened, or a connection that can't be accepted.
  static constexpr std::chrono::seconds kRetry{1};
  // What ended connections may leave to close; each may have brought hundreds of descriptors.
  static constexpr size_t kMaxClosing = 4;
  static constexpr std::chrono::minutes kShortage{1};  // between lines about it

  struct Capturing;
  struct Entry {
    Entry(EventLoop& loop, uint64_t cyclesPerSecond, EventLoop::Task open)
        : limits(cyclesPerSecond),
          accepting(loop,
                    [this] {
                      if (listenerWatch) listenerWatch.change(EPOLLIN);
                    }),
          opening(loop, std::move(open)) {}

    std::string id;
    std::string socket;
    PortSettings settings;  // all of them
    PortPolicy policy;
    PortLimits limits;
    std::unique_ptr<Port> port;
    std::unique_ptr<const PortView> view;
    UniqueFd listener;  // none: closed
    EventLoop::Watch listenerWatch;
    EventLoop::Timer accepting;  // again, after a pause
    std::unique_ptr<Connection> connection;
    // Has ended, but the pollers have not passed since: the next one waits.
    std::shared_ptr<Connection> leaving;
    bool connected = false;
    bool removed = false;
    std::string lastFailure;  // the last one that was logged
    LogLimiter complaints;
    std::optional<Clock::time_point> closedUntil;
    EventLoop::Timer opening;  // fires at closedUntil
    unsigned offences = 0;
    std::shared_ptr<Capturing> capturing;  // null: nobody captures
    std::optional<Closure> closure;        // while the port is closed because of it
  };
  using Entries = std::map<std::string, std::shared_ptr<Entry>>;  // by ID

  Entry& find(const std::string& id);
  MacTable::Port freeNumber() const;
  void addAddress(const Entry& entry);
  void returnAddress(const MacAddress& gone);
  // Gives the pollers a new view of the port.
  void publish(Entry& entry);
  void changeMembers(Port& port, const VlanSet& before, const VlanSet& after);

  void open(Entry& entry);
  void closeSocket(Entry& entry);
  // Path of a file "DEVICE.closed", which stands in for the missing socket of a closed port, so
  // that all ports of this switch can be found without asking it.
  std::string markOf(const Entry& entry) const;
  void markClosed(Entry& entry, std::chrono::milliseconds time);
  void openDue(Entry& entry);

  void accept(Entry& entry);
  void pause(Entry& entry);
  void lack(Entry& entry);
  void complain(Entry& entry, const std::string& text);
  void connect(Entry& entry, UniqueFd socket);
  void setConnected(Entry& entry, bool connected, const std::string& reason = "");
  void onEnded(Entry& entry, const std::string& reason);
  void endConnection(const std::shared_ptr<Entry>& entry);
  Poller& pollerOf(const TransmitQueue& queue);

  static const Capture* captureOf(const Entry& entry);
  void endCapture(Entry& entry);

  void handleOffences();
  void punish(const std::shared_ptr<Entry>& entry, Offence offence);

  const Options options_;
  const Shared shared_;
  const Events events_;
  const Capacity capacity_;
  const std::shared_ptr<MemoryGuard> guard_;
  Closer closer_;
  Entries entries_;
  std::vector<std::shared_ptr<Entry>> byNumber_;  // until the pollers have left it
  std::unique_ptr<Port> uplink_;
  PortView uplinkView_;
  std::optional<Clock::time_point> shortageLogged_;
  EventLoop::Watch passes_, offences_;
};

}  // namespace vdpa::vswitch
