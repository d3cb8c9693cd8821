// The names of the plugin's sockets in the kubelet's directory: "vdpa.io-nic-0a1b2c3d.sock", a new
// one for every registration.
//
// A kubelet from 1.37 on keys a plugin by resource and socket path (pkg/kubelet/cm/devicemanager,
// PluginConnected). Until it has noticed the end of the previous stream, it refuses a Register for
// the same path ("device plugin already connected"), and then keeps refusing that path until it
// restarts. It always accepts a new path.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace vdpa::plugin {

// ("vdpa.io/nic", 0xa1b2c3d) -> "vdpa.io-nic-0a1b2c3d.sock". All names of a resource have the same
// length.
std::string pluginSocketName(std::string_view resource, uint32_t number);

// A random name that is not in `directory`.
std::string newPluginSocketName(const std::string& directory, std::string_view resource);

// Removes the sockets of these resources that a killed plugin left in `directory`, including those
// with release 0.1.0's fixed name ("vdpa.io-nic.sock"). A socket that a process listens on stays.
// Logs errors.
void removeLeftoverSockets(const std::string& directory, const std::set<std::string>& resources);

}  // namespace vdpa::plugin
