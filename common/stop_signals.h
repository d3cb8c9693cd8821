// SIGTERM and SIGINT as a descriptor.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {

// Readable when the process must exit. Call before any other thread starts: threads inherit the
// signal mask, and a thread that doesn't block them would consume the signal.
inline UniqueFd takeStopSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(
      checked(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "cannot create a signalfd"));
}

}  // namespace vdpa
