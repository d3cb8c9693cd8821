// One Register call to the kubelet, without a thread of ours waiting for it.
#pragma once

#include <functional>
#include <string>

namespace vdpa {

// Calls `done` on a gRPC thread with an empty text, or with what went wrong. Bounded by a deadline.
// Uses a connection of its own: one kept over a kubelet restart needs seconds to come back.
void registerWithKubelet(const std::string& kubeletSocket, const std::string& endpoint,
                         const std::string& resource, std::function<void(std::string error)> done);

}  // namespace vdpa
