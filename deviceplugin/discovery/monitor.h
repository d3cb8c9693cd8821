// Reports that devices or the network configuration may have changed: after kernel uevents and
// rtnetlink events, which come in bursts, and periodically without any event.
//
// Sources: lib/kobject_uevent.c and rtnetlink(7).
#pragma once

#include <chrono>
#include <functional>
#include <string_view>

#include "common/event_loop.h"
#include "common/unique_fd.h"

namespace vdpa::plugin {

// Whether a uevent ("add@/devices/...\0ACTION=add\0SUBSYSTEM=pci\0...") is about devices.
bool concernsDevices(std::string_view uevent);
// Whether any rtnetlink message of this datagram can change the netdevs that the host uses or the
// state of a link: pods' routes and link-local addresses come and go all the time.
bool concernsHost(std::string_view datagram);

class Monitor {
 public:
  // Calls `changed` on the loop's thread: within 60 ms of the first event in a burst about devices,
  // within 250 ms of events about the host's network (pods' netdevs come and go all the time), and
  // whenever `withoutEvents` has passed. Throws std::system_error. The monitor must outlive the
  // loop's run.
  Monitor(EventLoop& loop, std::function<void()> changed,
          std::chrono::milliseconds withoutEvents = std::chrono::minutes(1));

 private:
  void readUevents();
  void readNetwork();
  void look();

  const std::function<void()> changed_;
  const std::chrono::milliseconds withoutEvents_;
  UniqueFd uevents_;
  UniqueFd network_;
  EventLoop::Watch ueventsWatch_, networkWatch_;
  EventLoop::Timer due_;
};

}  // namespace vdpa::plugin
