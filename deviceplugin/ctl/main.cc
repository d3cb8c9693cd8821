// vdpactl: what a person asks of a node's vDPA devices.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <map>

#include "commands.h"
#include "common/version.h"

int main(int argc, char** argv) {
  using namespace vdpa::ctl;
  Options options;
  CLI::App app(
      "Shows this node's vDPA devices, the pods that have them, and their traffic. Reads only, but "
      "for detach and\n"
      "drain; needs root, because the node daemons' sockets are root's.\n");
  app.set_version_flag("--version", vdpa::programVersion());
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--datapath-socket", options.datapathSocket, "where vdpa-datapath listens")
      ->capture_default_str();
  app.add_option("--plugin-socket", options.pluginSocket, "where vdpa-device-plugin listens")
      ->capture_default_str();
  app.add_option("--pod-resources", options.podResources, "the kubelet's PodResources socket")
      ->capture_default_str();
  app.add_option("-o,--output", options.output, "table or json")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Output>{{"table", Output::table}, {"json", Output::json}}));

  app.add_subcommand("devices",
                     "every device the node offers: health, reason, and the pod that has it");
  app.add_subcommand(
      "attachments",
      "every attached device with its pod, network and settings, and what becomes of "
      "it by itself; also\n"
      "devices that the kubelet gave to a pod which never attached them");
  auto* detaching = app.add_subcommand(
      "detach",
      "takes a device from a pod that is gone, when nobody else did; with --force from any pod");
  std::vector<std::string> what;
  bool force = false, yes = false;
  detaching->add_option("what", what, "DEVICE, or CONTAINER (its beginning will do) and INTERFACE")
      ->required()
      ->expected(1, 2);
  detaching->add_flag("--force", force,
                      "although the pod's network namespace exists: its packets stop at once; also "
                      "a device that is withheld\n"
                      "because its owner record can't be read");
  detaching->add_flag("--yes", yes, "don't ask; for scripts");
  auto* explaining = app.add_subcommand("explain",
                                        "why vdpa-device-plugin offers a device, or doesn't; "
                                        "without one, of all that is on the node");
  std::string device;
  explaining->add_option("device", device,
                         "a PCI address, the name of a vDPA device, or a software port");
  auto* stats = app.add_subcommand(
      "stats",
      "packets and bytes of every attached device, as the pod sees them, and drops by reason");
  bool watch = false;
  double seconds = 1;
  stats->add_flag("-w,--watch", watch, "again and again, with rates, until interrupted");
  stats->add_option("--interval", seconds, "seconds between two readings with --watch")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  auto* draining = app.add_subcommand(
      "drain",
      "before vdpa-datapath is removed from the node: ends the processes that serve devices, "
      "undoes "
      "what was\n"
      "provisioned, and offers no device until vdpa-datapath starts anew; refused while pods have "
      "devices");
  unsigned wait = 0;
  auto* waiting = draining
                      ->add_option("--wait", wait,
                                   "wait until no pod has one, for so many seconds or, without a "
                                   "number, for as long as it takes")
                      ->expected(0, 1);
  auto* probing = app.add_subcommand(
      "probe",
      "asks the health service on a node daemon's socket; exits with 0 if it is serving, else 1");
  std::string socket, service;
  probing->add_option("socket", socket, "/run/vdpa/datapath.sock or /run/vdpa/plugin.sock")
      ->required();
  probing->add_option("--service", service, "one service instead of the server as a whole");
  CLI11_PARSE(app, argc, argv);

  try {
    if (app.got_subcommand("devices")) {
      printDevices(options);
    } else if (app.got_subcommand("attachments")) {
      printAttachments(options);
    } else if (app.got_subcommand(detaching)) {
      detach(options, what, force, yes);
    } else if (app.got_subcommand(explaining)) {
      explain(options, device);
    } else if (app.got_subcommand(stats)) {
      const auto interval = std::chrono::milliseconds(watch ? static_cast<int>(seconds * 1000) : 0);
      printStats(options, interval);
    } else if (app.got_subcommand(draining)) {
      drain(options,
            waiting->count() > 0 ? std::optional(std::chrono::seconds(wait)) : std::nullopt);
    } else {
      return probe(socket, service) ? 0 : 1;
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpactl: {}\n", error.what());
    return 1;
  }
}
