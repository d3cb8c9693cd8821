// Signals a pod's eventfd.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cstdint>

#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/worker/engines/call_timer.h"

namespace vdpa::worker {

// Waits briefly at most, even if the pod has filled its counter or fills it meanwhile.
inline void signalEvent(const vhost_user::SharedFd& fd) {
  if (!fd) return;
  pollfd writable{fd->get(), POLLOUT, 0};
  if (::poll(&writable, 1, 0) != 1 || !(writable.revents & POLLOUT)) return;
  const CallTimer timer;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(fd->get(), &one, sizeof one);
}

}  // namespace vdpa::worker
