#include "deviceplugin/discovery/monitor.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include "common/event_loop.h"
#include "common/netlink/message.h"
#include "common/netlink/socket.h"
#include "common/unique_fd.h"

namespace vdpa::plugin {
namespace {

using namespace std::chrono_literals;

// Binding a VF causes several events within milliseconds.
constexpr auto kDevices = 40ms;
constexpr auto kNetwork = 250ms;
constexpr unsigned kUevents = 1;         // the kernel's own; udev's are 2
constexpr int kReceiveBuffer = 4 << 20;  // bytes: for 1,024 VFs that appear at once

UniqueFd openEvents(int protocol, unsigned groups) {
  UniqueFd fd = netlink::openSocket(protocol, groups, SOCK_NONBLOCK);
  // Without privileges the limit of net.core.rmem_max applies; an overflow is noticed.
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) <
      0)
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  return fd;
}

// Passes on every pending message from the kernel; `overflow` means that some were lost.
template <typename Handler>
void drain(int fd, Handler handler) {
  for (;;) {
    alignas(nlmsghdr) std::array<char, 16384> buffer;
    sockaddr_nl sender{};
    socklen_t size = sizeof sender;
    const ssize_t length = ::recvfrom(fd, buffer.data(), buffer.size(), 0,
                                      reinterpret_cast<sockaddr*>(&sender), &size);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0 && errno == ENOBUFS) {
      handler(std::string_view(), true);
      continue;
    }
    if (length < 0) return;
    if (sender.nl_pid != 0) continue;  // any process may send to the group
    handler(std::string_view(buffer.data(), static_cast<size_t>(length)), false);
  }
}

}  // namespace

bool concernsDevices(std::string_view uevent) {
  for (size_t start = 0; start < uevent.size();) {
    const size_t end = std::min(uevent.find('\0', start), uevent.size());
    const std::string_view field = uevent.substr(start, end - start);
    if (field == "SUBSYSTEM=pci" || field == "SUBSYSTEM=vdpa" || field == "SUBSYSTEM=auxiliary")
      return true;
    // A virtual netdev is a pod's.
    if (field.starts_with("DEVPATH=/devices/virtual/")) return false;
    if (field == "SUBSYSTEM=net") return true;
    start = end + 1;
  }
  return false;
}

bool concernsHost(std::string_view datagram) {
  netlink::Messages messages(std::as_bytes(std::span(datagram)));
  while (const auto message = messages.next()) {
    switch (message->type()) {
      case RTM_NEWROUTE:
      case RTM_DELROUTE: {  // only default routes count as the host's use of a netdev
        const auto route = message->body<rtmsg>();
        if (!route || (route->rtm_dst_len == 0 && route->rtm_type == RTN_UNICAST)) return true;
        break;
      }
      case RTM_NEWADDR:
      case RTM_DELADDR: {
        const auto address = message->body<ifaddrmsg>();
        if (!address || address->ifa_family != AF_INET6 || address->ifa_scope != RT_SCOPE_LINK)
          return true;
        break;
      }
      default:
        return true;
    }
  }
  return !messages.rest().empty();  // malformed
}

Monitor::Monitor(EventLoop& loop, std::function<void()> changed,
                 std::chrono::milliseconds withoutEvents)
    : changed_(std::move(changed)),
      withoutEvents_(withoutEvents),
      uevents_(openEvents(NETLINK_KOBJECT_UEVENT, kUevents)),
      network_(openEvents(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
                                             RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE)),
      ueventsWatch_(loop, uevents_.get(), EPOLLIN, [this](uint32_t) { readUevents(); }),
      networkWatch_(loop, network_.get(), EPOLLIN, [this](uint32_t) { readNetwork(); }),
      due_(loop, [this] { look(); }) {
  due_.start(withoutEvents_);
}

void Monitor::readUevents() {
  bool any = false;
  drain(uevents_.get(), [&](std::string_view message, bool overflow) {
    any = any || overflow || concernsDevices(message);
  });
  if (any) due_.startWithin(kDevices);
}

void Monitor::readNetwork() {
  bool any = false;
  drain(network_.get(), [&](std::string_view messages, bool overflow) {
    any = any || overflow || concernsHost(messages);
  });
  if (any) due_.startWithin(kNetwork);
}

void Monitor::look() {
  due_.start(withoutEvents_);
  changed_();
}

}  // namespace vdpa::plugin
