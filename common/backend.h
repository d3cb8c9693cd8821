// A device's backend and how a pod gets it, with the names in configuration, messages and records.
#pragma once

namespace vdpa {

enum class BackendKind { software, kernel, dpdk };
enum class Attach { vhostUser, vhostVdpa, virtioVdpa };

const char* nameOf(BackendKind backend);  // "software"
const char* nameOf(Attach attach);        // "vhost-user"

}  // namespace vdpa
