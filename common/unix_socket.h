// Unix stream sockets by path, with clear errors for the usual problems: a path too long, a stale
// file, no listener.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include "common/unique_fd.h"

namespace vdpa {

// Longest path that fits sockaddr_un (unix(7)), without its terminating zero.
inline constexpr size_t kMaxSocketPath = 107;

// A non-blocking listening socket at `path`, created with `mode`. Replaces a stale socket file; a
// socket that a process still listens on is an error. Throws std::system_error or
// std::invalid_argument (path too long).
UniqueFd listenUnix(const std::string& path, mode_t mode);

// A connected, non-blocking socket. Throws std::system_error; ENOENT and ECONNREFUSED mean that no
// process listens. If the listener's queue is full, waits for `timeout`, then throws EAGAIN.
UniqueFd connectUnix(const std::string& path,
                     std::chrono::milliseconds timeout = std::chrono::milliseconds(0));

// The process that called listen() last for the socket at `path`, as the kernel reports it
// (SO_PEERCRED, unix(7)); 0: one of a PID namespace that is invisible from here. Throws like
// connectUnix().
pid_t listenerOf(const std::string& path);

}  // namespace vdpa
