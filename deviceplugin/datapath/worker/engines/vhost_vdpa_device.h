// /dev/vhost-vdpa-N: the ioctls, and the memory that the device may reach.
//
// Sources: include/uapi/linux/{vhost,vhost_types}.h and drivers/vhost/vdpa.c in Linux 6.12.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"

namespace vdpa::worker {

class VhostVdpaDevice {
 public:
  struct Facts {
    uint64_t features = 0;         // of virtio, as the device offers them
    uint64_t backendFeatures = 0;  // VHOST_BACKEND_F_*, those in use
    uint32_t virtqueues = 2;       // a control queue included
    uint16_t queueSize = 256;      // entries of the largest ring
    uint64_t firstIova = 0, lastIova = UINT64_MAX;
    vhost_user::NetConfig config;
  };
  // Where the rings of a queue are, as the device addresses memory.
  struct Queue {
    uint32_t index = 0;
    uint32_t size = 0;
    uint32_t base = 0;  // as in VHOST_SET_VRING_BASE
    uint64_t descriptors = 0, available = 0, used = 0;
    int kick = -1, call = -1;
  };

  // Opens and resets it. Throws std::system_error naming path, problem and remedy: EBUSY if it is
  // open elsewhere, ESTALE if the path leads to another node than `inode` (0: any).
  explicit VhostVdpaDevice(const std::string& path, uint64_t inode = 0);
  ~VhostVdpaDevice();  // resets and closes it
  VhostVdpaDevice(const VhostVdpaDevice&) = delete;
  VhostVdpaDevice& operator=(const VhostVdpaDevice&) = delete;

  const Facts& facts() const { return facts_; }

  // From reset to "features agreed on". Throws std::system_error.
  void negotiate(uint64_t features);
  // Maps `size` bytes of the file at `offset` to `iova` for the device, all page-aligned. The pages
  // are pinned on this process's account, but never touched here. Throws std::system_error; EINVAL
  // if unaligned or outside the device's range.
  void map(uint64_t iova, uint64_t size, int file, uint64_t offset);
  // The same of this process's own memory.
  void mapOwn(uint64_t iova, uint64_t size, void* memory);
  // Undoes map() at this address; also while the device runs.
  void unmap(uint64_t iova);
  // A batch of these takes effect at its end.
  void beginMapping();
  void endMapping();
  void unmapAll();

  void setQueue(const Queue& queue);
  void setCall(uint32_t index, int call);
  void setKick(uint32_t index, int kick);
  void enable(uint32_t index);
  void run();  // DRIVER_OK
  // Whether the device can be stopped without losing its positions.
  bool canSuspend() const;
  void suspend();
  // Where the device stopped; nothing if it doesn't report that.
  std::optional<uint32_t> base(uint32_t index);
  void reset();

 private:
  struct Mapping {
    uint64_t iova, size;
    void* memory;  // ours to unmap; null: the caller's
  };

  void ioctl(unsigned long request, const void* argument, const char* what);
  void checkPinned(uint64_t size) const;
  void sendIotlb(uint8_t type, uint64_t iova, uint64_t size, uint64_t address);
  void setStatus(uint8_t status);
  uint8_t status();

  const std::string path_;
  UniqueFd fd_;
  Facts facts_;
  std::vector<Mapping> mappings_;
};

}  // namespace vdpa::worker
