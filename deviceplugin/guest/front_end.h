// The front-end of one vhost-user connection, as far as guests with their own ring driver need it.
// The messages are those of "Vhost-user Protocol" (QEMU's docs/interop/vhost-user.rst).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {

// All methods throw std::runtime_error, with the socket's path, if the back-end ends the connection
// or doesn't answer within ten seconds.
class FrontEnd {
 public:
  // Connects to the back-end that listens there.
  explicit FrontEnd(std::string path);

  // Agrees on those of `wanted` (bits as in virtio 1.2) that are offered; returns them. VERSION_1
  // and vhost-user's own PROTOCOL_FEATURES are always wanted, the first is demanded.
  uint64_t negotiate(uint64_t wanted);
  // All of it, in one region.
  void share(const SharedMemory& memory);
  // Starts a ring whose driver begins at entry 0, and enables it. Borrows the eventfds.
  void start(uint32_t index, uint32_t size, const virtqueue::RingAddresses& addresses, bool packed,
             int kick, int call);
  void enable(uint32_t index, bool on);
  // Waits until everything sent before has been handled.
  void synchronize();
  // Whether the back-end has ended the connection.
  bool ended() const;

 private:
  void send(vhost_user::Request request, const void* payload, size_t size,
            int descriptor = -1) const;
  void send(vhost_user::Request request, uint64_t value) const {
    send(request, &value, sizeof value);
  }
  uint64_t ask(vhost_user::Request request) const;

  std::string path_;
  UniqueFd socket_;
};

}  // namespace vdpa::guest
