// The names of the plugin's sockets in the kubelet's directory: "vdpa.io-nic-0a1b2c3d.sock", a new
// one for every registration.
//
// A kubelet from 1.37 on keys a plugin by resource and socket path (pkg/kubelet/cm/devicemanager,
// PluginConnected). It refuses a Register for a path that it still has ("device plugin already
// connected"), as it does until it has noticed the end of the stream before, and then refuses that
// path until it restarts. A path that it never saw is always taken.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace vdpa::plugin {

// ("vdpa.io/nic", 0xa1b2c3d) -> "vdpa.io-nic-0a1b2c3d.sock". All names of a resource have one
// length.
std::string pluginSocketName(std::string_view resource, uint32_t number);

// A random one that is not in `directory`.
std::string newPluginSocketName(const std::string& directory, std::string_view resource);

// Removes the sockets of these resources that a killed plugin left in `directory`, also those with
// the one name that release 0.1.0 gave them ("vdpa.io-nic.sock"). A socket that a process listens
// on is not a leftover, whatever its name, and stays. Errors are logged.
void removeLeftoverSockets(const std::string& directory, const std::set<std::string>& resources);

}  // namespace vdpa::plugin
