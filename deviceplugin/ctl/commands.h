// vdpactl's sub-commands. Each prints to standard output and throws std::runtime_error with what to
// do.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "deviceplugin/ctl/client.h"

namespace vdpa::ctl {

// Every device the node offers: its health with the reason, and who has it.
void printDevices(const Options& options);

// Every attachment, and every device that the kubelet gave to a pod which never attached it.
void printAttachments(const Options& options);

// Takes a device from its owner: `what` names the device, or the container (its beginning will do)
// and the interface that has it. Asks on the terminal when `force` is given without `yes`.
void detach(const Options& options, const std::vector<std::string>& what, bool force, bool yes);

// The counters of every attached device; with `interval` above zero again and again, with rates,
// for ever.
void printStats(const Options& options, std::chrono::milliseconds interval);

// Why the plugin offers a device, or doesn't; without an ID, of everything that is on the node.
void explain(const Options& options, const std::string& deviceId);

// Ends all that serves devices on this node. While pods have some it waits for that long; without
// `wait` it fails at once.
void drain(const Options& options, std::optional<std::chrono::seconds> wait);

// True if the gRPC health service on the unix socket says SERVING; prints one line.
bool probe(const std::string& socketPath, const std::string& service);

}  // namespace vdpa::ctl
