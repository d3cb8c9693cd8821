// The socket file in the pod's directory.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/unique_fd.h"

namespace vdpa::worker {

struct SocketFile {
  std::string path;
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0666;
  std::string selinuxLabel;  // empty: as the directory gives it
};

// Listens; the destructor removes the file.
class PodSocket {
 public:
  // The file appears once it has its owner, label and mode and accepts connections; a stale one is
  // replaced. The control socket ensures that no other worker listens there. Throws
  // std::system_error, or std::invalid_argument for a path that is too long.
  explicit PodSocket(const SocketFile& file);
  ~PodSocket();
  PodSocket(const PodSocket&) = delete;
  PodSocket& operator=(const PodSocket&) = delete;

  int fd() const { return listener_.get(); }
  // The next front-end that connects, if any.
  UniqueFd accept();

 private:
  std::string path_;
  UniqueFd listener_;
};

}  // namespace vdpa::worker
