#include "common/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

sockaddr_un addressOf(const std::string& path) {
  if (path.size() > kMaxSocketPath)
    throw std::invalid_argument(fmt::format("socket path {} has {} bytes; at most {} fit", path,
                                            path.size(), kMaxSocketPath));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

UniqueFd newSocket() {
  return UniqueFd(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                          "cannot create a unix socket"));
}

void removeStale(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) < 0) return;
  if (!S_ISSOCK(status.st_mode))
    throw systemError(EEXIST, "cannot listen on {}, which is not a socket", path);
  try {
    connectUnix(path);
  } catch (const std::system_error& error) {
    if (error.code().value() != ECONNREFUSED && error.code().value() != ENOENT) throw;
    ::unlink(path.c_str());
    return;
  }
  throw systemError(EADDRINUSE, "cannot listen on {}: another process does", path);
}

}  // namespace

UniqueFd listenUnix(const std::string& path, mode_t mode) {
  const sockaddr_un address = addressOf(path);
  removeStale(path);
  UniqueFd socket = newSocket();
  // On Linux the mode of a socket file starts from the mode of the socket's inode: no moment with a
  // wider one.
  checked(::fchmod(socket.get(), mode), "cannot set the mode of {}", path);
  checked(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "cannot bind {}", path);
  checked(::chmod(path.c_str(), mode), "cannot set the mode of {}", path);
  checked(::listen(socket.get(), 64), "cannot listen on {}", path);
  return socket;
}

UniqueFd connectUnix(const std::string& path, std::chrono::milliseconds timeout) {
  const sockaddr_un address = addressOf(path);
  UniqueFd socket = newSocket();
  const bool waits = timeout.count() > 0;
  if (waits) {
    // poll() does not report room in the queue; a blocking connect() waits for it (SO_SNDTIMEO).
    const timeval limit{timeout.count() / 1000, timeout.count() % 1000 * 1000};
    checked(::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit),
            "cannot limit the time to connect to {}", path);
    checked(::fcntl(socket.get(), F_SETFL, 0), "cannot make a socket blocking");
  }
  checked(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "cannot connect to {}", path);
  if (waits)
    checked(::fcntl(socket.get(), F_SETFL, O_NONBLOCK), "cannot make a socket non-blocking");
  return socket;
}

pid_t listenerOf(const std::string& path) {
  const UniqueFd socket = connectUnix(path);
  ucred peer{};
  socklen_t size = sizeof peer;
  checked(::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size),
          "cannot ask who listens on {}", path);
  return peer.pid;
}

}  // namespace vdpa
