// vdpa-device-plugin: offers this node's vDPA devices to the kubelet.
#include <fmt/core.h>
#include <grpcpp/health_check_service_interface.h>
#include <malloc.h>

#include <exception>
#include <string>

#include "common/command_line.h"
#include "common/log.h"
#include "common/netlink/vdpa_netlink.h"
#include "common/version.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/take_snapshot.h"
#include "deviceplugin/instance.h"
#include "deviceplugin/resources/offer.h"

int main(int argc, char** argv) {
  using namespace vdpa;
  using namespace vdpa::plugin;
  PluginOptions options;
  std::string logLevel = "info", logFormat = "text";
  bool validate = false;
  CommandLine app(
      "Offers this node's vDPA devices to the kubelet as extended resources and keeps the list "
      "current.\n"
      "The configuration selects the devices; vdpa-datapath serves their sockets.\n");
  app.version(programVersion());
  app.option("--config", options.config, "the configuration; reloaded when it changes")
      .showDefault();
  app.flag("--validate", validate,
           "check the configuration, print what each resource offers on this node, and exit");
  app.option("--kubelet-dir", options.kubeletDirectory, "the kubelet's device plugin directory")
      .showDefault();
  app.option("--pod-resources", options.podResources, "the kubelet's PodResources socket")
      .showDefault();
  app.option("--run-dir", options.runDirectory, "sockets and device directories").showDefault();
  app.option("--devinfo-dir", options.deviceInfoDirectory, "device-info files for Multus")
      .showDefault();
  app.option("--sysfs", options.sysfs, "the sysfs to scan for devices").showDefault();
  app.option("--datapath-socket", options.datapathSocket,
             "where vdpa-datapath listens [RUN-DIR/datapath.sock]");
  app.option("--node-name", options.nodeName,
             "this node's name: for resources that are for some nodes, and for the log");
  app.option("--metrics-address", options.metricsAddress,
             "HOST:PORT to serve Prometheus metrics on; off by default");
  app.option("--features-dir", options.featuresDirectory,
             "write Node Feature Discovery's feature file \"vdpa\" there; off by default");
  app.option("--log-level", logLevel, "trace, debug, info, warning or error").showDefault();
  app.option("--log-format", logFormat, "text or json").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  try {
    initLogging("vdpa-device-plugin", logLevel, logFormat);
    if (validate) {
      const Config config = loadConfig(options.config, options.nodeName);
      VdpaNetlink netlink;
      fmt::print("{}", describe(makeOffers(config, takeSnapshot(options.sysfs, netlink))));
      return 0;
    }
    ::mallopt(M_ARENA_MAX, 2);  // each of gRPC's threads would get its own arena
    grpc::EnableDefaultHealthCheckService(true);
    log::info("vdpa-device-plugin {} starts{}{}", programVersion(),
              options.nodeName.empty() ? "" : " on ", options.nodeName);
    Instance instance(options);
    instance.run();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-device-plugin: {}\n", error.what());
    return 1;
  }
}
