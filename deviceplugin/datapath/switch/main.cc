// vdpa-switch: the layer-2 switch behind one resource's software ports. Started and supervised by
// vdpa-datapath.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

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
  SwitchOptions options;
  std::string cores, logLevel = "info", logFormat = "text";
  CLI::App app(
      "A learning layer-2 switch with vhost-user ports. vdpa-datapath starts it and tells it its "
      "ports.");
  app.set_version_flag("--version", programVersion());
  app.add_option("--name", options.name, "the resource it serves")->required();
  app.add_option("--control", options.control, "its control socket")->required();
  app.add_option("--ports-dir", options.portsDirectory, "where the ports' sockets are made")
      ->required();
  app.add_option("--queue-pairs", options.queuePairs, "of each port")
      ->capture_default_str()
      ->check(CLI::Range(1u, 16u));
  app.add_option("--mtu", options.mtu, "the largest of any port, in bytes")
      ->capture_default_str()
      ->check(CLI::Range(68u, 9000u));
  app.add_option("--uplink", options.uplink, "a netdev as the way out of the node");
  app.add_option("--cores", cores,
                 "a CPU list; one polling thread on each [one thread, not pinned]");
  app.add_option("--log-level", logLevel, "trace, debug, info, warning or error")
      ->capture_default_str();
  app.add_option("--log-format", logFormat, "text or json")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

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
