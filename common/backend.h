// What is behind a device and how a pod gets it, as configuration, messages and records name them.
#pragma once

namespace vdpa {

enum class BackendKind { software, kernel, dpdk };
enum class Attach { vhostUser, vhostVdpa, virtioVdpa };

const char* nameOf(BackendKind backend);  // "software"
const char* nameOf(Attach attach);        // "vhost-user"

}  // namespace vdpa
