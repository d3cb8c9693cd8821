// One asynchronous Register call to the kubelet.
#pragma once

#include <functional>
#include <string>

#include "common/event_loop.h"

namespace vdpa::plugin {

// Calls `done` on a gRPC thread with an error, empty on success. Bounded by a deadline. Uses a new
// connection: one kept over a kubelet restart needs seconds to recover. The returned function
// cancels the call.
std::function<void()> registerWithKubelet(EventLoop& loop, const std::string& kubeletSocket,
                                          const std::string& endpoint, const std::string& resource,
                                          std::function<void(std::string error)> done);

}  // namespace vdpa::plugin
