// The wiring of one vdpa-switch, and its control operations.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/control_channel.h"
#include "common/event_loop.h"
#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "common/uplink_config.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/ports/ports.h"
#include "deviceplugin/datapath/switch/program.h"

namespace vdpa::vswitch {

struct SwitchOptions {
  std::string name;
  std::string control;
  int controlFd = -1;  // already listens there; -1: none
  std::string portsDirectory;
  unsigned queuePairs = 1;
  unsigned mtu = 1500;
  UplinkConfig uplink;
  std::vector<unsigned> cores;  // empty: one poller, not pinned
};

class Switch {
 public:
  // `open` is called only with an uplink. Throws what it throws, and std::system_error.
  Switch(SwitchOptions options, const OpenUplink& open);
  ~Switch();
  Switch(const Switch&) = delete;
  Switch& operator=(const Switch&) = delete;

  void run();  // returns after "stop", SIGTERM or SIGINT

 private:
  control::Answer answer(const control::Request& request, Descriptors& descriptors);
  control::Capturing capture(const control::Capture& capture, Descriptors& descriptors);
  std::string addPort(const control::Port& port);
  control::HelloAnswer hello() const;
  void send(control::Event event);
  void release(std::string_view reason);
  void stop();

  SwitchOptions options_;
  EventLoop loop_;
  UniqueFd signals_;
  std::unique_ptr<Uplink> uplink_;
  MacTable table_;
  PortTable portTable_;
  Offences offences_;
  ServingPage serving_;
  Epoch epoch_;
  std::vector<std::unique_ptr<Poller>> pollers_;
  std::unique_ptr<Ports> ports_;
  ControlServer control_;
  EventLoop::Watch signalWatch_, controlWatch_;
  EventLoop::Timer holding_;  // while frames stay in the pods' rings
  bool stopping_ = false;
};

}  // namespace vdpa::vswitch
