#include "deviceplugin/datapath/worker/pod_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>

#include "common/errors.h"
#include "common/unix_socket.h"

namespace vdpa::worker {

PodSocket::PodSocket(const SocketFile& file) : path_(file.path) {
  const std::string prepared = path_ + "~";
  listener_ = listenUnix(prepared, 0600);
  const char* path = prepared.c_str();
  try {
    checked(::lchown(path, file.uid, file.gid), "cannot give {} to {}:{}", path_, file.uid,
            file.gid);
    if (!file.selinuxLabel.empty())
      checked(::lsetxattr(path, "security.selinux", file.selinuxLabel.c_str(),
                          file.selinuxLabel.size() + 1, 0),
              "cannot label {} with {}", path_, file.selinuxLabel);
    checked(::chmod(path, file.mode), "cannot set the mode of {} to {:o}", path_, file.mode);
    checked(::rename(path, path_.c_str()), "cannot create {}", path_);
  } catch (...) {
    ::unlink(path);
    throw;
  }
}

PodSocket::~PodSocket() {
  ::unlink(path_.c_str());
}

UniqueFd PodSocket::accept() {
  return UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

}  // namespace vdpa::worker
