#include "deviceplugin/datapath/vhost_user/backend_channel.h"

#include <sys/socket.h>

#include <utility>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

int socketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

}  // namespace

void BackendChannel::open(UniqueFd& socket) {
  if (socketOption(socket.get(), SO_DOMAIN) != AF_UNIX ||
      socketOption(socket.get(), SO_TYPE) != SOCK_STREAM)
    throw protocolError("the descriptor is not a Unix stream socket");
  std::swap(socket_, socket);
}

void BackendChannel::configChanged() const {
  if (!socket_) return;
  const MessageHeader message{kBackendConfigChange, kVersion, 0};
  ::send(socket_.get(), &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace vdpa::vhost_user
