#include "deviceplugin/datapath/switch/uplink/netdev.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/dpdk/start_eal.h"
#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"
#include "deviceplugin/datapath/switch/uplink/packet_socket.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"
#include "deviceplugin/datapath/switch/uplink/wake.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif

namespace vdpa::vswitch {
namespace {

constexpr unsigned kTaggedHeader = 18;      // bytes
constexpr unsigned kXdpPage = 4096;         // a frame of AF_XDP, with DPDK's own parts, fits a page
constexpr unsigned kXdpOwn = 512;           // at most, of those parts
constexpr unsigned kXdpDescriptors = 2048;  // of DPDK's net_af_xdp, in each direction

// The size of a frame's slot in the packet socket's ring: a frame, its tag and the ring's own
// header fit; slots are powers of two of at least 2 KiB.
unsigned slotBytes(unsigned mtu) {
  unsigned slot = 2048;
  while (slot < mtu + kTaggedHeader + 256) slot *= 2;
  return slot;
}

// DPDK binds a socket to each combined channel; a netdev without such a setting has one. The frames
// of channels that only receive would go to the node.
struct Channels {
  unsigned combined = 1;
  unsigned receiveOnly = 0;
};

Channels channelsOf(const std::string& netdev) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request{};
  netdev.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (::ioctl(socket.get(), SIOCETHTOOL, &request) != 0) return {};
  if (channels.combined_count > 0) return {channels.combined_count, channels.rx_count};
  return {1, channels.rx_count > 0 ? channels.rx_count - 1 : 0};
}

// DPDK hides its sockets.
std::set<int> xdpSockets() {
  std::set<int> sockets;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const std::string name = entry.path().filename();
    int fd = -1, domain = 0;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    socklen_t size = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_XDP)
      sockets.insert(fd);
  }
  return sockets;
}

// The socket of a queue is readable while frames wait in its ring. That of the port keeps the
// netdev promiscuous.
class XdpWake : public Wake {
 public:
  XdpWake(int fd, std::shared_ptr<const PacketSocket> promiscuous)
      : fd_(fd), promiscuous_(std::move(promiscuous)) {}
  int fd() const override { return fd_; }
  void arm() override {}
  void disarm() override {}

 private:
  const int fd_;  // DPDK's
  const std::shared_ptr<const PacketSocket> promiscuous_;
};

}  // namespace

UplinkDevice packetDevice(const UplinkOptions& options) {
  const unsigned slot = slotBytes(options.mtu);
  UplinkDevice device;
  device.title = options.netdev;
  device.eal = {"--no-pci", "-m", "16"};
  device.name = "net_af_packet0";
  device.arguments =
      fmt::format("iface={},qpairs={},blocksz={},framesz={},framecnt=512,qdisc_bypass=1",
                  options.netdev, options.queues, std::max(slot, 4096u), slot);
  device.room = slot;
  device.port.queues = options.queues;
  auto sockets = std::make_shared<std::vector<std::unique_ptr<Wake>>>();
  for (unsigned queue = 0; queue < options.queues; ++queue)
    sockets->push_back(std::make_unique<PacketSocket>(options.netdev));
  device.makeWake = [sockets](unsigned queue) { return std::move((*sockets)[queue]); };
  return device;
}

UplinkDevice xdpDevice(const UplinkOptions& options) {
  auto promiscuous = std::make_shared<const PacketSocket>(options.netdev);
  if (options.mtu + kTaggedHeader + kXdpOwn > kXdpPage)
    throw std::runtime_error(fmt::format(
        "uplink {} carries an MTU of at most {} by AF_XDP, but 'mtu' in the configuration is {}: "
        "remove 'xdp'",
        options.netdev, kXdpPage - kXdpOwn - kTaggedHeader, options.mtu));
  if (const auto channels = channelsOf(options.netdev);
      channels.combined != options.queues || channels.receiveOnly != 0)
    throw std::runtime_error(fmt::format(
        "uplink {} has {} combined and {} other channels for received frames, but by AF_XDP each "
        "of the switch's {} polling threads needs a combined one, and there must be no other: run "
        "'ethtool -L {} combined {}', or change 'cores' in the configuration",
        options.netdev, channels.combined, channels.receiveOnly, options.queues, options.netdev,
        options.queues));
  const auto driver = dpdk::versionedLibrary("librte_net_af_xdp.so");
  if (!::dlopen(driver.c_str(), RTLD_NOW | RTLD_GLOBAL))
    throw std::runtime_error(fmt::format("uplink {} has no AF_XDP: cannot load DPDK's driver: {}",
                                         options.netdev, ::dlerror()));
  UplinkDevice device;
  device.title = options.netdev;
  device.eal = {"--no-pci", "-m", "16"};
  device.name = "net_af_xdp0";
  device.arguments =
      fmt::format("iface={},start_queue=0,queue_count={}", options.netdev, options.queues);
  device.room = std::max(2048u, options.mtu + kTaggedHeader);
  device.packetsPerQueue = 2 * kXdpDescriptors + 2048;
  device.port.queues = options.queues;
  device.makeWake = [promiscuous, known = xdpSockets()](unsigned) mutable -> std::unique_ptr<Wake> {
    for (const int fd : xdpSockets())
      if (known.insert(fd).second) return std::make_unique<XdpWake>(fd, promiscuous);
    return nullptr;  // polled
  };
  return device;
}

}  // namespace vdpa::vswitch
