// vdpa-pmd: one device behind one of DPDK's vDPA drivers, served to its worker on a private
// vhost-user socket. Started and supervised by vdpa-datapath.
#include <fmt/core.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>

#include "common/command_line.h"
#include "common/control_lock.h"
#include "common/log.h"
#include "common/resource_limit.h"
#include "common/version.h"
#include "deviceplugin/datapath/pmd/driver.h"
#include "deviceplugin/datapath/pmd/failure.h"
#include "deviceplugin/datapath/pmd/options.h"
#include "deviceplugin/datapath/pmd/pmd.h"

namespace vdpa::pmd {
namespace {

int run(int argc, char** argv) {
  CommandLine app{
      "Serves one device to its vdpa-worker with one of DPDK's vDPA drivers. Started by "
      "vdpa-datapath, one for each device of the dpdk backend."};
  PmdOptions options;
  std::string logLevel = "info", logFormat = "text";
  app.version(programVersion());
  app.option("--device", options.device, "ID of the device, for messages").required();
  auto pci = app.option("--pci", options.pci, "address of the function: 0000:65:00.2")
                 .check(
                     [](const std::string& text) {
                       unsigned domain, bus, slot, function;
                       int length = 0;
                       return std::sscanf(text.c_str(), "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot,
                                          &function, &length) == 4 &&
                                      length == 12 && text.size() == 12
                                  ? std::string()
                                  : std::string("expected an address such as 0000:65:00.2");
                     },
                     "ADDRESS");
  app.option("--driver", options.driver, "DPDK driver: ifc, mlx5 or sfc").needs(pci);
  app.option("--devargs", options.devargs,
             "additional arguments for the driver, in DPDK's syntax: sw-live-migration=1,...")
      .needs(pci);
  auto vdev = app.option("--vdev", options.vdev,
                         "instead of --pci, a device of a driver that is not DPDK's own: "
                         "NAME[,ARGUMENT=VALUE...], with --load")
                  .excludes(pci);
  auto load =
      app.option("--load", options.plugin, "shared object with the driver of --vdev").needs(vdev);
  vdev.needs(load);
  app.option("--memory", options.megabytes,
             "MiB for DPDK and the driver [16; 64 for mlx5, which keeps more]")
      .range(8u, 4096u);
  app.option("--socket", options.socket, "the worker's vhost-user socket, created here").required();
  app.option("--control", options.control, "control socket, created here").required();
  app.option("--control-fd", options.controlFd, "a descriptor that already listens there");
  app.option("--sysfs", options.sysfs).showDefault();
  app.option("--log-level", logLevel, "trace, debug, info, warning or error").showDefault();
  app.option("--log-format", logFormat, "text or json").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  initLogging("vdpa-pmd", logLevel, logFormat);
  if (options.vdev.empty() && (options.pci.empty() || options.driver.empty()))
    throw std::runtime_error("expected --pci and --driver, or --vdev and --load");
  if (!options.vdev.empty())
    options.driver = options.vdev.substr(0, options.vdev.find_first_of("0123456789,"));
  const ControlLock lock(options.control);
  raiseDescriptorLimit();
  raiseMemoryLimit();
  std::unique_ptr<Pmd> pmd;
  try {
    if (options.vdev.empty()) checkFunction(options.sysfs, options.pci, findDriver(options.driver));
    pmd = std::make_unique<Pmd>(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-pmd: {}\n", error.what());
    tellFailure(options, error.what());
    return 1;
  }
  pmd->run();
  return 0;
}

}  // namespace
}  // namespace vdpa::pmd

int main(int argc, char** argv) {
  try {
    return vdpa::pmd::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-pmd: {}\n", error.what());
    return 1;
  }
}
