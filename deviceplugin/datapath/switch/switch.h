// The wiring of one vdpa-switch, and its control operations.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/control_channel.h"
#include "common/mutex.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/eal.h"
#include "deviceplugin/datapath/switch/poller.h"
#include "deviceplugin/datapath/switch/uplink.h"
#include "deviceplugin/datapath/switch/vhost_ports.h"

namespace vdpa::vswitch {

struct SwitchOptions {
  std::string name;
  std::string control;
  int controlFd = -1;  // already listens there; -1: none
  std::string portsDirectory;
  unsigned queuePairs = 1;
  unsigned mtu = 1500;
  std::string uplink;
  std::vector<unsigned> cores;  // empty: one poller, not pinned
};

class Switch {
 public:
  explicit Switch(SwitchOptions options);

  void run();  // returns after "stop", SIGTERM or SIGINT

 private:
  control::Answer answer(const control::Request& request);
  std::string addPort(const control::Port& port);
  control::HelloAnswer hello() const;
  void queueEvent(control::Event event);
  void sendEvents();
  int untilNextDeadline() const;  // ms, for poll()
  void release(std::string_view reason);

  SwitchOptions options_;
  UniqueFd signals_;
  UniqueFd eventReady_;
  Mutex eventsMutex_;
  // Queued by other threads, sent by the control loop.
  std::vector<control::Event> events_ GUARDED_BY(eventsMutex_);
  Eal eal_;
  MacTable table_;
  StalledCalls stalled_;
  ServingPage serving_;
  std::unique_ptr<Uplink> uplink_;
  Publisher publisher_;
  std::vector<std::unique_ptr<Poller>> pollers_;
  std::unique_ptr<VhostPorts> ports_;  // is destroyed before the pollers
  ControlServer control_;
  std::optional<std::chrono::steady_clock::time_point> heldUntil_;
  bool stop_ = false;
};

}  // namespace vdpa::vswitch
