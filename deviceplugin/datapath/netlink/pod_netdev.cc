#include "deviceplugin/datapath/netlink/pod_netdev.h"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "common/log.h"
#include "common/port_settings.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/netlink/gratuitous_arp.h"
#include "deviceplugin/datapath/netlink/ip_prefix.h"
#include "deviceplugin/datapath/netlink/rtnetlink.h"

namespace vdpa::datapath {
namespace {

constexpr std::chrono::milliseconds kCarrierTime{500};

UniqueFd openNamespace(const std::string& path) {
  return UniqueFd(checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "cannot open {}", path));
}

// Uses a thread of its own, since setns() changes the namespace of the calling thread.
void inNamespace(const std::string& netns, const std::function<void(Rtnetlink&)>& work) {
  const UniqueFd file = openNamespace(netns);
  std::exception_ptr failure;
  std::thread([&] {
    try {
      checked(::setns(file.get(), CLONE_NEWNET), "cannot enter the network namespace {}", netns);
      Rtnetlink rtnetlink;
      work(rtnetlink);
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

// A netdev that was just set up has no carrier for a moment, in which frames are lost. A failure is
// not fatal: neighbours notice by themselves, in time.
void tellNeighbours(Rtnetlink& pod, const std::string& name,
                    const std::vector<std::string>& addresses) {
  if (addresses.empty()) return;
  const auto deadline = std::chrono::steady_clock::now() + kCarrierTime;
  try {
    auto link = pod.find(name);
    for (; link && !link->running && std::chrono::steady_clock::now() < deadline;
         link = pod.find(name))
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (!link || !link->running)
      log::warn("{} has no carrier: its addresses are not announced to its neighbours", name);
    else if (link->mac)
      sendGratuitousArp(link->index, *link->mac, addresses);
  } catch (const std::exception& error) {
    log::warn("the addresses of {} are not announced to its neighbours: {}", name, error.what());
  }
}

}  // namespace

NetdevFacts moveToPod(const PodNetdev& netdev, unsigned mtu, const PodMac& mac) {
  Rtnetlink host;
  const UniqueFd netns = openNamespace(netdev.netns);
  if (const auto link = host.find(netdev.host)) {
    // The kernel would move it under its old name, and then fail to rename it.
    inNamespace(netdev.netns, [&](Rtnetlink& pod) {
      if (pod.find(netdev.pod))
        throw systemError(EEXIST, "{} already has an interface {}", netdev.netns, netdev.pod);
    });
    host.setUp(link->index, false);  // an interface that is up can't be renamed
    host.moveTo(link->index, netns.get(), netdev.pod);
  }
  NetdevFacts facts;
  inNamespace(netdev.netns, [&](Rtnetlink& pod) {
    const auto link = pod.find(netdev.pod);
    if (!link)
      throw systemError(ENODEV, "netdev {} is neither on the host nor, as {}, in {}", netdev.host,
                        netdev.pod, netdev.netns);
    if (mtu != 0) pod.setMtu(link->index, mtu);
    if (mac.address && mac.address != link->mac) try {
        pod.setUp(link->index, false);  // not every driver accepts another MAC while it is up
        pod.setMac(link->index, *mac.address);
      } catch (const std::system_error& error) {
        if (mac.required) throw;
        log::info("{} of {} keeps its own MAC: {}", netdev.pod, netdev.netns, error.what());
      }
    pod.setUp(link->index, true);
    const auto now = pod.find(netdev.pod);
    if (!now) throw systemError(ENODEV, "{} has lost its interface {}", netdev.netns, netdev.pod);
    facts = {now->mac, now->mtu};
  });
  return facts;
}

void renameOnHost(const std::string& now, const std::string& name) {
  Rtnetlink host;
  const auto link = host.find(now);
  if (!link) return;
  try {
    host.rename(link->index, name);
  } catch (const std::exception& error) {
    log::warn("netdev {} keeps its name instead of {}: {}", now, name, error.what());
  }
}

std::vector<PodRoute> setAddresses(const PodNetdev& netdev, const PodAddresses& before,
                                   const PodAddresses& now) {
  std::vector<PodRoute> set;
  if (before.ips.empty() && now.ips.empty() && before.routes.empty() && now.routes.empty())
    return set;
  inNamespace(netdev.netns, [&](Rtnetlink& pod) {
    const auto link = pod.find(netdev.pod);
    if (!link) throw systemError(ENODEV, "{} has no interface {}", netdev.netns, netdev.pod);
    const auto lacks = [](const auto& list, const auto& wanted) {
      return std::find(list.begin(), list.end(), wanted) == list.end();
    };
    for (const auto& route : before.routes)
      if (lacks(now.routes, route)) pod.removeRoute(link->index, route);
    for (const auto& address : before.ips)
      if (lacks(now.ips, address)) pod.removeAddress(link->index, address);
    for (const auto& address : now.ips) pod.addAddress(link->index, address);
    for (const auto& route : now.routes) {
      if (pod.addRoute(link->index, route))
        set.push_back(route);
      else
        log::warn("{} already has a route to {} and keeps it", netdev.netns, route.destination);
    }
    tellNeighbours(pod, netdev.pod, now.ips);
  });
  return set;
}

void compareNetdev(const PodNetdev& netdev, const NetdevFacts& facts, const PodAddresses& addresses,
                   Differences& differences) {
  inNamespace(netdev.netns, [&](Rtnetlink& pod) {
    const auto link = pod.find(netdev.pod);
    if (!link) return differences.add("{} has no interface {}", netdev.netns, netdev.pod);
    if (!link->up) differences.add("interface {} is down in {}", netdev.pod, netdev.netns);
    differences.compare("mac of " + netdev.pod, textOf(facts.mac), textOf(link->mac));
    // A later plugin of the chain may have made it smaller without reporting it.
    if (link->mtu > facts.mtu)
      differences.add("mtu of {} is {}; expected at most {}", netdev.pod, link->mtu, facts.mtu);
    const auto found = pod.addresses(link->index);
    for (const auto& address : addresses.ips)
      if (std::find(found.begin(), found.end(), parsePrefix(address).text()) == found.end())
        differences.add("interface {} has no address {}", netdev.pod, address);
    for (const auto& route : addresses.routes)
      if (!pod.hasRoute(link->index, route))
        differences.add("interface {} has no route to {}{}", netdev.pod, route.destination,
                        route.gateway.empty() ? "" : " via " + route.gateway);
  });
}

}  // namespace vdpa::datapath
