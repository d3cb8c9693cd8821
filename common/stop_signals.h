// SIGTERM and SIGINT as something to poll.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {

// Readable when the process shall end. To be called before any other thread starts: threads inherit
// what is blocked, and one that did not would take the signal away.
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
