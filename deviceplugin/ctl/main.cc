// vdpactl: shows and manages a node's vDPA devices.
#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/capture_ring.h"
#include "common/command_line.h"
#include "common/version.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/completion.h"
#include "deviceplugin/ctl/diagnosis.h"

int main(int argc, char** argv) {
  using namespace vdpa::ctl;
  using vdpa::CommandLine;
  Options options;
  CommandLine app(
      "Shows this node's vDPA devices, the pods that have them, and their traffic. Only detach and "
      "drain change\n"
      "anything. Needs root, as the node daemons' sockets belong to root.\n");
  app.version(vdpa::programVersion());
  app.option("--datapath-socket", options.datapathSocket, "where vdpa-datapath listens")
      .showDefault();
  app.option("--plugin-socket", options.pluginSocket, "where vdpa-device-plugin listens")
      .showDefault();
  app.option("--pod-resources", options.podResources, "the kubelet's PodResources socket")
      .showDefault();
  app.choice<Output>("-o,--output", options.output, "table or json",
                     {{"table", Output::table}, {"json", Output::json}});

  app.subcommand("devices",
                 "every device that the node offers, with its health, the reason and its pod");
  app.subcommand("attachments",
                 "every attached device with its pod, network, settings and pending automatic "
                 "changes; also\n"
                 "devices that the kubelet gave to a pod that never attached them");
  app.subcommand("detach",
                 "detach a device from a pod that no longer exists; with --force, from any pod");
  std::vector<std::string> what;
  bool force = false, yes = false;
  app.option("what", what, "DEVICE, or CONTAINER (a prefix is enough) and INTERFACE")
      .required()
      .expected(1, 2);
  app.flag("--force", force,
           "even if the pod still exists (it loses its packets at once), or if the device is "
           "withheld\n"
           "because its owner record can't be read");
  app.flag("--yes", yes, "don't ask; for scripts");
  app.subcommand("explain",
                 "why vdpa-device-plugin offers a device, or doesn't; "
                 "without DEVICE, for all devices on the node");
  std::string device;
  app.option("device", device, "a PCI address, the name of a vDPA device, or a software port");
  app.subcommand(
      "stats",
      "packets and bytes of every attached device, as the pod sees them, and drops by reason");
  bool watch = false;
  double seconds = 1;
  app.flag("-w,--watch", watch, "refresh until interrupted, with rates");
  app.option("--interval", seconds, "seconds between two readings with --watch")
      .showDefault()
      .range(0.1, 3600.0);
  app.subcommand("capture",
                 "write the frames of a software port as pcapng, those that are dropped with the "
                 "reason as a comment,\n"
                 "until interrupted: vdpactl capture nic-0 | tcpdump -r -");
  CaptureRequest captured;
  unsigned frames = 0;
  captured.snapLength = vdpa::kMaxSnapLength;
  app.option("device", captured.device, "a software port, attached to a pod").required();
  app.option("-w", captured.file, "a file; -: standard output").showDefault();
  const auto counted = app.option("-c", frames, "end after that many frames").range(1u, UINT32_MAX);
  unsigned captureSeconds = 0, captureSize = 1024;
  const auto timed =
      app.option("--seconds", captureSeconds, "end after that time").range(1u, 86400u * 365);
  app.option("--max-size", captureSize, "of the file, in MiB: end when it has so much")
      .showDefault()
      .range(1u, UINT32_MAX);
  app.option("--snaplen", captured.snapLength, "bytes to keep of each frame")
      .showDefault()
      .range(1u, vdpa::kMaxSnapLength);
  app.subcommand(
      "drain",
      "before removing vdpa-datapath from the node: stop the processes that serve devices, undo "
      "provisioning,\n"
      "and offer no device until vdpa-datapath is restarted; refused while pods have devices");
  unsigned wait = 0;
  const auto waiting = app.option("--wait", wait,
                                  "wait until no pod has a device, for that many seconds or, "
                                  "without a number, without limit")
                           .expected(0, 1);
  app.subcommand(
      "probe",
      "ask the health service on a node daemon's socket; exit with 0 if it is serving, else 1");
  std::string socket, service;
  app.option("socket", socket, "/run/vdpa/datapath.sock or /run/vdpa/plugin.sock").required();
  app.option("--service", service, "one service instead of the server as a whole");
  DiagnosisOptions diagnosis;
  const auto nodeOptions = [&] {
    app.option("--root", diagnosis.root,
               "where the node's files are, before every path: /host in a pod of `kubectl debug "
               "node/...`");
    app.option("--cni-dir", diagnosis.paths.cniDirectory, "the node's CNI plugins").showDefault();
    app.option("--cni-conf-dir", diagnosis.paths.cniConfigurations, "their configurations")
        .showDefault();
    app.option("--kubelet-dir", diagnosis.paths.kubeletDirectory, "the kubelet's directory")
        .showDefault();
    app.option("--run-dir", diagnosis.paths.runDirectory, "sockets and device directories")
        .showDefault();
    app.option("--state-dir", diagnosis.paths.stateDirectory, "owner records").showDefault();
  };
  app.subcommand("doctor",
                 "examine the node, in a container of vdpa-datapath or on the node itself: PASS, "
                 "WARN or FAIL for each\n"
                 "check, with the remedy; exits with 1 if one failed");
  nodeOptions();
  app.subcommand("bundle",
                 "write what a report of a bug needs to one file: doctor's findings, records, "
                 "configurations,\n"
                 "snapshots of the kernel's devices, logs; no packets and no secrets");
  nodeOptions();
  app.option("--namespace", diagnosis.podNamespace, "of the daemons' pods, for their logs")
      .showDefault();
  std::string archive;
  app.option("-o", archive, "FILE.tar.gz; - for standard output").required();
  app.subcommand("lint",
                 "check networks and pods in YAML files before they are applied, with the CNI "
                 "plugin's own parser;\n"
                 "prints FILE:LINE: PROBLEM, and exits with 1 if there is one");
  std::vector<std::string> files;
  app.option("files", files, "YAML or JSON; - for standard input").required();
  app.subcommand("completion",
                 "print the script that makes a shell complete vdpactl's command lines, device "
                 "names included:\n"
                 "source <(vdpactl completion bash)");
  Shell shell = Shell::bash;
  app.choice<Shell>("shell", shell, "bash, zsh or fish",
                    {{"bash", Shell::bash}, {"zsh", Shell::zsh}, {"fish", Shell::fish}})
      .required();
  if (const auto words = wordsToComplete(argc, argv))
    return printWords(app.complete(
        *words, [&](const std::string& name) -> std::optional<std::vector<std::string>> {
          if (name != "device" && name != "what") return std::nullopt;
          return deviceIds(options.datapathSocket);
        }));
  if (const auto status = app.parse(argc, argv)) return *status;

  try {
    if (app.got("devices")) {
      printDevices(options);
    } else if (app.got("attachments")) {
      printAttachments(options);
    } else if (app.got("detach")) {
      detach(options, what, force, yes);
    } else if (app.got("explain")) {
      explain(options, device);
    } else if (app.got("stats")) {
      const auto interval = std::chrono::milliseconds(watch ? static_cast<int>(seconds * 1000) : 0);
      printStats(options, interval);
    } else if (app.got("completion")) {
      printCompletion(shell);
    } else if (app.got("capture")) {
      if (counted.given()) captured.count = frames;
      if (timed.given()) captured.seconds = std::chrono::seconds(captureSeconds);
      captured.mostMiB = captureSize;
      capture(options, captured);
    } else if (app.got("drain")) {
      drain(options, waiting.given() ? std::optional(std::chrono::seconds(wait)) : std::nullopt);
    } else if (app.got("doctor")) {
      return doctor(options, diagnosis) ? 0 : 1;
    } else if (app.got("bundle")) {
      bundle(options, diagnosis, archive);
    } else if (app.got("lint")) {
      return lint(options, files) ? 0 : 1;
    } else {
      return probe(socket, service) ? 0 : 1;
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpactl: {}\n", error.what());
    return 1;
  }
}
