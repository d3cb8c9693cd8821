// A network device with several queue pairs behind a node like /dev/vhost-vdpa-N, in this process:
// the executable is linked with --wrap for open64, close, ioctl and write, which are redirected
// here for that node. It follows the rules of drivers/vhost/vdpa.c in Linux 6.12 that the engine
// can break, and those of virtio 1.2, 5.1: it returns all sent packets, spread over the pairs that
// it was set to use.
#pragma once

#include <linux/virtio_config.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/unique_fd.h"
#include "tests/unit/worker/device_ring.h"

namespace vdpa::worker::test {

struct Nic {
  uint16_t pairs = 4;
  bool suspends = true;
  uint8_t answer = 0;  // of its control queue
  bool deaf = false;   // ignores its control queue
};

class UserSpaceDevice {
 public:
  explicit UserSpaceDevice(Nic nic = {});
  ~UserSpaceDevice();
  UserSpaceDevice(const UserSpaceDevice&) = delete;
  UserSpaceDevice& operator=(const UserSpaceDevice&) = delete;

  const std::string& path() const { return path_; }
  // Every number of pairs that was set, and the number in use now.
  std::vector<uint16_t> told() const;
  uint16_t active() const;
  // How often it started, and which queues were enabled then, a control queue as 2 * pairs.
  unsigned starts() const;
  std::vector<uint32_t> enabled() const;
  bool isOpen() const;
  // Frames for which a ring was not ready or had no buffer.
  unsigned lost() const;
  // Rules of the kernel or of virtio that were broken.
  std::vector<std::string> faults() const;

  // The system calls: return 0 or an error number, except write(), which returns bytes.
  static UserSpaceDevice* of(int fd);
  static UserSpaceDevice* at(const char* path);
  int opened();
  void closed();
  int ioctl(unsigned long request, void* argument);
  ssize_t write(const void* data, size_t size);

 private:
  struct Queue {
    VhostVdpaDevice::Queue where;
    bool enabled = false;
    UniqueFd kick, call;
    std::unique_ptr<DeviceRing> ring;  // while it runs
  };
  struct Mapping {
    uint64_t size;
    std::byte* memory;
  };

  void run();
  void work();
  void control();
  bool forward(uint16_t pair);
  void deliver(const std::vector<std::byte>& frame);
  void start();
  void reset();
  int setStatus(uint8_t status);
  int setQueue(unsigned long request, void* argument);
  int stop();
  bool runs() const { return (status_ & VIRTIO_CONFIG_S_DRIVER_OK) && !suspended_; }
  std::byte* memory(uint64_t address, uint64_t size);
  uint32_t controlIndex() const;

  const Nic nic_;
  std::string path_;
  UniqueFd kicked_, stop_;  // an epoll of the kicks, and the end of the thread
  mutable std::recursive_mutex mutex_;
  bool open_ = false, owned_ = false, suspended_ = false;
  uint8_t status_ = 0;
  uint64_t features_ = 0, backendFeatures_ = 0;
  std::vector<Queue> queues_;
  std::map<uint64_t, Mapping> mappings_;
  uint16_t active_ = 1, next_ = 0;
  unsigned starts_ = 0, lost_ = 0;
  std::vector<uint16_t> told_;
  std::vector<std::string> faults_;
  std::thread thread_;
};

}  // namespace vdpa::worker::test
