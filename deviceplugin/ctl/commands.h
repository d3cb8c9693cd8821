// vdpactl's sub-commands. Each prints to standard output and throws std::runtime_error with a
// remedy.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/diagnosis.h"

namespace vdpa::ctl {

// Every device that the node offers, with its health, the reason and its pod.
void printDevices(const Options& options);

// Every attachment, and every device that the kubelet gave to a pod that never attached it.
void printAttachments(const Options& options);

// Detaches a device from its owner. `what` names the device, or the container (a unique prefix) and
// the interface. Asks on the terminal if `force` is given without `yes`.
void detach(const Options& options, const std::vector<std::string>& what, bool force, bool yes);

// The counters of every attached device; an `interval` above zero refreshes them for ever, with
// rates.
void printStats(const Options& options, std::chrono::milliseconds interval);

// Why the plugin offers a device, or doesn't; without an ID, for every device on the node.
void explain(const Options& options, const std::string& deviceId);

// Stops everything that serves devices on this node. Waits up to `wait` (0: without limit) while
// pods have devices; without `wait` it then fails at once.
void drain(const Options& options, std::optional<std::chrono::seconds> wait);

// Examines the node: what is missing or wrong, and what to do. False if a check failed.
bool doctor(const Options& options, const DiagnosisOptions& diagnosis);

// Writes all that a report of a bug needs to a gzipped tar file ("-": standard output).
void bundle(const Options& options, const DiagnosisOptions& diagnosis, const std::string& file);

// Checks networks and pods in these files ("-": standard input). False if something is wrong.
bool lint(const Options& options, const std::vector<std::string>& files);

struct CaptureRequest {
  std::string device;
  std::string file = "-";         // standard output
  std::optional<uint64_t> count;  // frames; none: until SIGINT, SIGTERM or the end of the port
  uint32_t snapLength = 0;        // bytes of each frame
  std::optional<std::chrono::seconds> seconds;
  uint64_t mostMiB = 1024;  // of a file; a batch of frames more at most
};
// Writes the frames of a port of the software switch, as pcapng. To a file, it ends when standard
// input or standard error hangs up: whoever has started it is gone. Blocks SIGINT and SIGTERM.
void capture(const Options& options, const CaptureRequest& request);

// True if the gRPC health service on the unix socket reports SERVING; prints one line.
bool probe(const std::string& socketPath, const std::string& service);

}  // namespace vdpa::ctl
