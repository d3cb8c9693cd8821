// Real events of the kernel, injected: root may make it broadcast a uevent in its network namespace
// (since Linux 4.18).
#include "deviceplugin/discovery/monitor.h"

#include <catch2/catch.hpp>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/unique_fd.h"

using namespace vdpa;
using namespace vdpa::plugin;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

void inject(const std::string& text) {
  const UniqueFd socket(
      checked(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT), "socket"));
  std::string message(sizeof(nlmsghdr), '\0');
  message += text;
  auto* header = reinterpret_cast<nlmsghdr*>(message.data());
  header->nlmsg_len = static_cast<uint32_t>(message.size());
  header->nlmsg_type = NLMSG_MIN_TYPE;
  header->nlmsg_flags = NLM_F_REQUEST;
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  REQUIRE(::sendto(socket.get(), message.data(), message.size(), 0,
                   reinterpret_cast<const sockaddr*>(&kernel),
                   sizeof kernel) == static_cast<ssize_t>(message.size()));
}

// Once, while the result exists.
std::unique_ptr<EventLoop::Timer> after(EventLoop& loop, std::chrono::milliseconds delay,
                                        EventLoop::Task task) {
  auto timer = std::make_unique<EventLoop::Timer>(loop, std::move(task));
  timer->start(delay);
  return timer;
}

const std::string kVf =
    "add@/devices/pci0000:00/0000:41:00.1\0ACTION=add\0"
    "DEVPATH=/devices/pci0000:00/0000:41:00.1\0SUBSYSTEM=pci\0"s;

}  // namespace

TEST_CASE("which uevents are about devices") {
  CHECK(concernsDevices(kVf));
  CHECK(concernsDevices("add@/x\0DEVPATH=/devices/x\0SUBSYSTEM=vdpa\0"s));
  CHECK(concernsDevices("add@/x\0DEVPATH=/devices/x\0SUBSYSTEM=auxiliary\0"s));
  CHECK(concernsDevices("add@/x\0DEVPATH=/devices/pci0000:00/x/net/eth0\0SUBSYSTEM=net\0"s));
  CHECK_FALSE(concernsDevices("add@/x\0DEVPATH=/devices/virtual/net/veth1\0SUBSYSTEM=net\0"s));
  CHECK_FALSE(concernsDevices("change@/x\0DEVPATH=/devices/x\0SUBSYSTEM=block\0"s));
  CHECK_FALSE(concernsDevices(""));
  CHECK_FALSE(concernsDevices("SUBSYSTEM=pc"));
}

TEST_CASE("a burst of events is one call, and it comes soon") {
  std::thread([] {  // only this thread uses the namespace
    REQUIRE(::unshare(CLONE_NEWNET) == 0);
    EventLoop loop;
    int calls = 0;
    EventLoop::Clock::time_point last;
    Monitor monitor(loop, [&] {
      ++calls;
      last = EventLoop::Clock::now();
      if (calls == 2) loop.stop();
    });
    EventLoop::Clock::time_point first;
    const auto timer1 = after(loop, 10ms, [&] {
      first = EventLoop::Clock::now();
      for (int i = 0; i < 100; ++i) inject(kVf);
    });
    // The new namespace sends events too: wait for a call after those.
    const auto timer2 = after(loop, 400ms, [&] {
      CHECK(calls == 1);
      CHECK(last - first < 100ms);
      inject(kVf);
    });
    const auto timer3 = after(loop, 10s, [&] { loop.stop(); });  // too late
    loop.run();
    CHECK(calls == 2);
  })
      .join();
}

TEST_CASE("a change that no event tells of is found all the same") {
  std::thread([] {
    REQUIRE(::unshare(CLONE_NEWNET) == 0);
    EventLoop loop;
    int calls = 0;
    Monitor monitor(
        loop,
        [&] {
          if (++calls == 3) loop.stop();
        },
        20ms);
    bool late = false;
    const auto timer4 = after(loop, 10s, [&] {
      late = true;
      loop.stop();
    });
    loop.run();
    CHECK_FALSE(late);
  }).join();
}

TEST_CASE("events that were lost count as one that matters") {
  std::thread([] {
    REQUIRE(::unshare(CLONE_NEWNET) == 0);
    EventLoop loop;
    int calls = 0;
    bool flooded = false;
    Monitor monitor(loop, [&] {
      ++calls;
      if (flooded) loop.stop();
    });
    const std::string other = "add@/x\0DEVPATH=/devices/x\0SUBSYSTEM=block\0"s;
    const auto timer5 = after(loop, 400ms, [&] {
      calls = 0;  // the namespace's first events
      for (int i = 0; i < 100; ++i) inject(other);
    });
    const auto timer6 = after(loop, 800ms, [&] {
      CHECK(calls == 0);
      flooded = true;
      for (int i = 0; i < 50'000; ++i) inject(other);  // far more than a socket's buffer holds
    });
    const auto timer7 = after(loop, 20s, [&] { loop.stop(); });
    loop.run();
    CHECK(calls == 1);
  }).join();
}

namespace {

template <typename Body>
std::string network(uint16_t type, const Body& body) {
  std::string message(NLMSG_SPACE(sizeof body), '\0');
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof body);
  header.nlmsg_type = type;
  std::memcpy(message.data(), &header, sizeof header);
  std::memcpy(message.data() + NLMSG_HDRLEN, &body, sizeof body);
  return message;
}

}  // namespace

TEST_CASE("only what can change the host's use of a netdev, or a link, leads to a scan") {
  rtmsg pods{}, defaultRoute{};
  pods.rtm_family = defaultRoute.rtm_family = AF_INET;
  pods.rtm_type = defaultRoute.rtm_type = RTN_UNICAST;
  pods.rtm_dst_len = 32;
  ifaddrmsg linkLocal{}, global{};
  linkLocal.ifa_family = global.ifa_family = AF_INET6;
  linkLocal.ifa_scope = RT_SCOPE_LINK;
  CHECK_FALSE(concernsHost(""));
  CHECK_FALSE(concernsHost(network(RTM_NEWROUTE, pods) + network(RTM_NEWADDR, linkLocal)));
  CHECK(concernsHost(network(RTM_DELROUTE, pods) + network(RTM_DELROUTE, defaultRoute)));
  CHECK(concernsHost(network(RTM_DELADDR, global)));
  CHECK(concernsHost(network(RTM_NEWLINK, ifinfomsg{})));
  CHECK(concernsHost(std::string(NLMSG_HDRLEN, '\xff')));  // an unreadable event may mean anything
}
