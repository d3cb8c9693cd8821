// Keeps a netdev promiscuous, and signals that a frame came, which DPDK's net_af_packet does not.
#pragma once

#include <string>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/uplink/wake.h"

namespace vdpa::vswitch {

// A frame on any queue makes it readable: a poller may wake for another's frame. While disarmed,
// its filter drops all frames, so they cost nothing.
class PacketSocket : public Wake {
 public:
  // Throws std::system_error naming the netdev: it must exist, and the process needs CAP_NET_RAW.
  explicit PacketSocket(const std::string& netdev);

  int fd() const override { return socket_.get(); }
  void arm() override;
  void disarm() override;

 private:
  UniqueFd socket_;
};

}  // namespace vdpa::vswitch
