// One Register call to the kubelet, without a thread of ours waiting for it.
#pragma once

#include <functional>
#include <string>

#include "common/event_loop.h"

namespace vdpa::plugin {

// Calls `done` on a gRPC thread with an empty text, or with what went wrong. Bounded by a deadline.
// Uses a connection of its own: one kept over a kubelet restart needs seconds to come back. The
// result cancels the call.
std::function<void()> registerWithKubelet(EventLoop& loop, const std::string& kubeletSocket,
                                          const std::string& endpoint, const std::string& resource,
                                          std::function<void(std::string error)> done);

}  // namespace vdpa::plugin
