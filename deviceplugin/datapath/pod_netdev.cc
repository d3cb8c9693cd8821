// See the header.
#include "deviceplugin/datapath/pod_netdev.h"

#include <fcntl.h>
#include <sched.h>

#include <exception>
#include <functional>
#include <thread>

#include "common/errors.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/rtnetlink.h"

namespace vdpa {
namespace {

UniqueFd openNamespace(const std::string& path) {
  return UniqueFd(checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "cannot open {}", path));
}

// A thread alone changes its namespace, and is never used for anything else.
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

}  // namespace

NetdevFacts moveToPod(const PodNetdev& netdev, const std::vector<std::string>& addresses,
                      const std::vector<PodRoute>& routes, unsigned mtu) {
  Rtnetlink host;
  const UniqueFd netns = openNamespace(netdev.netns);
  if (const auto link = host.find(netdev.host)) {
    // The kernel would move it under the name it has, and then fail to rename it.
    inNamespace(netdev.netns, [&](Rtnetlink& pod) {
      if (pod.find(netdev.pod))
        throw systemError(EEXIST, "{} has an interface {} already", netdev.netns, netdev.pod);
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
    pod.setUp(link->index, true);
    for (const auto& address : addresses) pod.addAddress(link->index, address);
    for (const auto& [destination, gateway] : routes)
      pod.addRoute(link->index, destination, gateway);
    facts = {link->mac, mtu != 0 ? mtu : link->mtu};
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
    spdlog::warn("netdev {} was {} before it went to a pod: {}", now, name, error.what());
  }
}

bool podHas(const PodNetdev& netdev) {
  bool has = false;
  inNamespace(netdev.netns, [&](Rtnetlink& pod) {
    const auto link = pod.find(netdev.pod);
    has = link && link->up;
  });
  return has;
}

}  // namespace vdpa
