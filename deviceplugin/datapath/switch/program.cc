#include "deviceplugin/datapath/switch/program.h"

#include <fmt/core.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/command_line.h"
#include "common/control_lock.h"
#include "common/log.h"
#include "common/naming.h"
#include "common/number_list.h"
#include "common/resource_limit.h"
#include "common/uplink_config.h"
#include "common/version.h"
#include "deviceplugin/datapath/switch/switch.h"

namespace vdpa::vswitch {
namespace {

// "2-3,6" -> {2, 3, 6}
std::vector<unsigned> parseCores(const std::string& text) {
  const auto ranges = parseNumberList(text);
  if (!ranges)
    throw std::invalid_argument(
        fmt::format("--cores '{}': expected a CPU list such as 2-3,6", text));
  std::vector<unsigned> cores;
  for (const auto& range : *ranges)
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  return cores;
}

// Of the three options at most one is given.
UplinkConfig uplinkOf(const std::string& netdev, const std::string& xdpNetdev,
                      const std::string& pci, bool possible) {
  UplinkConfig uplink{netdev, !xdpNetdev.empty(), pci};
  if (uplink.xdp) uplink.netdev = xdpNetdev;
  if ((!netdev.empty() && uplink.xdp) || (!uplink.netdev.empty() && !pci.empty()))
    throw std::invalid_argument("a switch has one of --uplink, --uplink-xdp and --uplink-pci");
  if (!pci.empty() && !isPciAddress(pci))
    throw std::invalid_argument(
        fmt::format("--uplink-pci '{}': expected a PCI address such as 0000:65:00.0", pci));
  if (!uplink.empty() && !possible)
    throw std::invalid_argument(fmt::format(
        "uplink {}: this program has no uplinks; vdpa-switch-dpdk has them", describe(uplink)));
  return uplink;
}

}  // namespace

int runSwitch(const char* program, int argc, char** argv, const OpenUplink& open) {
  SwitchOptions options;
  std::string uplink, xdpUplink, pciUplink, cores, logLevel = "info", logFormat = "text";
  CommandLine app(
      "A learning layer-2 switch with vhost-user ports. vdpa-datapath starts it and configures "
      "its ports.");
  app.version(programVersion());
  app.option("--name", options.name, "the resource it serves").required();
  app.option("--control", options.control, "its control socket").required();
  app.option("--control-fd", options.controlFd, "a descriptor that already listens there");
  app.option("--ports-dir", options.portsDirectory, "where the ports' sockets are created")
      .required();
  app.option("--queue-pairs", options.queuePairs, "of each port").showDefault().range(1u, 16u);
  app.option("--mtu", options.mtu, "the largest of any port, in bytes")
      .showDefault()
      .range(68u, 9000u);
  app.option("--uplink", uplink, "the netdev that leads out of the node, by a packet socket");
  app.option("--uplink-xdp", xdpUplink, "the same, by AF_XDP");
  app.option("--uplink-pci", pciUplink, "a PCI function in its place, bound to vfio-pci");
  app.option("--cores", cores, "a CPU list; one polling thread on each [one thread, not pinned]");
  app.option("--log-level", logLevel, "trace, debug, info, warning or error").showDefault();
  app.option("--log-format", logFormat, "text or json").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  try {
    initLogging(program, logLevel, logFormat);
    if (!cores.empty()) options.cores = parseCores(cores);
    options.uplink = uplinkOf(uplink, xdpUplink, pciUplink, static_cast<bool>(open));
    raiseDescriptorLimit();
    // The kernel pins buffers for VFIO, and for AF_XDP.
    if (!options.uplink.pci.empty() || options.uplink.xdp) raiseMemoryLimit();
    const ControlLock lock(options.control);
    Switch instance(std::move(options), open);
    instance.run();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", program, error.what());
    return 1;
  }
}

}  // namespace vdpa::vswitch
