// vdpa-switch: the layer-2 switch behind one resource's software ports. vdpa-datapath starts and
// supervises it.
#include <fmt/core.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/command_line.h"
#include "common/control_lock.h"
#include "common/log.h"
#include "common/number_list.h"
#include "common/resource_limit.h"
#include "common/version.h"
#include "deviceplugin/datapath/switch/switch.h"

namespace {

// "2-3,6" -> {2, 3, 6}
std::vector<unsigned> parseCores(const std::string& text) {
  const auto ranges = vdpa::parseNumberList(text);
  if (!ranges)
    throw std::invalid_argument(
        fmt::format("--cores '{}': expected a CPU list such as 2-3,6", text));
  std::vector<unsigned> cores;
  for (const auto& range : *ranges)
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  return cores;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace vdpa;
  using namespace vdpa::vswitch;
  SwitchOptions options;
  std::string cores, logLevel = "info", logFormat = "text";
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
  app.option("--uplink", options.uplink, "the netdev that leads out of the node");
  app.option("--cores", cores, "a CPU list; one polling thread on each [one thread, not pinned]");
  app.option("--log-level", logLevel, "trace, debug, info, warning or error").showDefault();
  app.option("--log-format", logFormat, "text or json").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  try {
    initLogging("vdpa-switch", logLevel, logFormat);
    if (!cores.empty()) options.cores = parseCores(cores);
    raiseDescriptorLimit();
    const ControlLock lock(options.control);
    Switch instance(std::move(options));
    instance.run();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-switch: {}\n", error.what());
    return 1;
  }
}
