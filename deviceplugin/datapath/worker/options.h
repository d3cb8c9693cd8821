// The options of vdpa-worker.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/mac_address.h"
#include "deviceplugin/datapath/worker/pod_socket.h"

namespace vdpa::worker {

struct WorkerOptions {
  std::string device;
  SocketFile socket;
  std::string engine;         // the engine's vhost-user socket, or
  bool behindSwitch = false;  // that socket is a port of vdpa-switch
  std::string vhostVdpa;      // the kernel's character device
  uint64_t inode = 0;         // of its node; 0: any
  std::string control;        // where the datapath finds this worker
  int controlFd = -1;         // already listens there; -1: none
  uint32_t queuePairs = 1;
  uint32_t queueSize = 1024;
  bool offloads = true;  // offer checksum and segmentation offloads, as far as the engine has them
  // Reported to front-ends that ask; none: the device's own.
  std::optional<MacAddress> mac;
  std::optional<uint16_t> mtu;
};

}  // namespace vdpa::worker
