// The kernel's engine: /dev/vhost-vdpa-N. The pod's memory and eventfds go to the kernel as they
// are; from DRIVER_OK on, the device and the pod work without the worker.
//
// The ioctls run on the loop's thread. They take micro- to milliseconds; pinning memory takes
// longest, some milliseconds per GiB, during which the datapath's requests wait.
#pragma once

#include <memory>

#include "common/event_loop.h"
#include "deviceplugin/datapath/worker/engines/control_queue.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

namespace vdpa::worker {

// The limits reported to the pod, and the features negotiated with the device.
EngineLimits limitsOf(const VhostVdpaDevice::Facts& facts, uint32_t mostPairs);
uint64_t deviceFeatures(const VhostVdpaDevice::Facts& facts, uint64_t driverFeatures,
                        uint32_t pairs);
// An address for `size` bytes of the worker's own memory, in the device's range and outside the
// pod's regions; throws ProtocolError if the pod has left no room.
uint64_t freeIova(const VhostVdpaDevice::Facts& facts, const vhost_user::MemoryTable& memory,
                  uint64_t size);

class VhostVdpaEngine : public Engine {
 public:
  // Opens `path` once the loop runs, and retries while another process has it open. Once the node
  // has vanished, the device is closed for good: another may get its name. `inode` is the node's;
  // 0: that of the first node found.
  VhostVdpaEngine(EventLoop& loop, std::string path, uint64_t inode, uint32_t mostPairs,
                  Events events);
  VhostVdpaEngine(const VhostVdpaEngine&) = delete;
  VhostVdpaEngine& operator=(const VhostVdpaEngine&) = delete;

  const std::optional<EngineLimits>& limits() const override { return limits_; }
  bool up() const override { return up_; }
  bool running() const override { return running_; }
  void follow(vhost_user::VhostDevice* device) override { device_ = device; }
  void release() override;
  void update() override;
  bool settled() const override { return true; }

 private:
  // The state with which the device was started.
  struct Started {
    std::shared_ptr<const vhost_user::MemoryTable> memory;
    uint64_t features = 0;
    std::vector<bool> rings;
    std::vector<vhost_user::VringAddresses> addresses;
    std::vector<vhost_user::SharedFd> kicks, calls;
    uint16_t pairs = 0;
  };

  void open();
  void watchNode();
  bool vanished() const;
  void gone(const std::string& reason);
  void setUp(bool up, const std::string& reason);
  std::vector<bool> wantedRings() const;
  uint16_t wantedPairs() const;
  void start(const std::vector<bool>& rings);
  void startQueues(const std::vector<bool>& rings);
  void stop(bool keepPositions);
  bool ringsStay() const;
  void remap();
  void refresh();

  EventLoop& loop_;
  const std::string path_;
  uint64_t inode_;
  const uint32_t mostPairs_;
  const Events events_;
  std::unique_ptr<VhostVdpaDevice> kernel_;
  std::optional<EngineLimits> limits_;
  EventLoop::Timer opening_;
  UniqueFd inotify_;
  EventLoop::Watch nodeWatch_;
  std::chrono::milliseconds backOff_{10};
  bool up_ = false;
  std::string lastReason_;
  std::string
      unserved_;  // why the last start failed, if not by the pod's fault; until one succeeds
  vhost_user::VhostDevice* device_ = nullptr;
  bool running_ = false;
  Started started_;
  std::unique_ptr<ControlQueue> control_;
};

}  // namespace vdpa::worker
