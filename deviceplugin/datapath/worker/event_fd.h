// Signalling a pod's eventfd.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cstdint>

#include "deviceplugin/datapath/worker/message.h"

namespace vdpa {

// Never waits, whatever the pod has filled its counter with.
inline void signalEvent(const SharedFd& fd) {
  if (!fd) return;
  pollfd writable{fd->get(), POLLOUT, 0};
  if (::poll(&writable, 1, 0) != 1 || !(writable.revents & POLLOUT)) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(fd->get(), &one, sizeof one);
}

}  // namespace vdpa
