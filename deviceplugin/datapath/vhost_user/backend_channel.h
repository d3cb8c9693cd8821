// The socket on which a back-end sends requests to its front-end (SET_BACKEND_REQ_FD).
#pragma once

#include "common/unique_fd.h"

namespace vdpa::vhost_user {

class BackendChannel {
 public:
  // Takes the socket, and leaves the one before, if any, in its place. Throws ProtocolError for
  // anything but a Unix stream socket: writing to another descriptor of the front-end's could
  // block.
  void open(UniqueFd& socket);

  // Sends CONFIG_CHANGE_MSG: the front-end is to read the configuration space again. Doesn't block.
  // Does nothing without a socket. Lost if the front-end has left a socket full of them unread, and
  // so will read it anyway.
  void configChanged() const;

 private:
  UniqueFd socket_;
};

}  // namespace vdpa::vhost_user
