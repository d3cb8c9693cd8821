// The private socket on which rte_vhost serves the worker, the device behind it, and the state of
// its only connection.
#pragma once

#include <string>

#include "common/mutex.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/dpdk/vhost_waker.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"

struct rte_vdpa_device;
struct rte_vhost_device_ops;

namespace vdpa::pmd {

// One a process: rte_vhost's callbacks carry no context. Methods are for the control thread, unless
// they say otherwise.
class VhostSession {
 public:
  explicit VhostSession(std::string path);
  ~VhostSession();
  VhostSession(const VhostSession&) = delete;
  VhostSession& operator=(const VhostSession&) = delete;

  // Serves `device`. Throws std::runtime_error.
  void open(rte_vdpa_device* device);
  // Ends the connection, if there is one, and accepts none. When it returns, the driver has
  // released the pod's memory.
  void close();
  bool isOpen() const { return open_; }

  // Readable when take() has something new.
  int fd() const { return changed_.get(); }
  // Readable when a pod's memory is gone; clears itself with memoryGone().
  int memoryFd() const { return memoryAlarm_.get(); }
  void memoryGone();

  struct State {
    bool connected = false;  // the device serves the worker's queues
    std::string failure;     // why the connection must be closed
  };
  // The state now; clears fd(). A failure is reported once.
  State take();

  // The driver started the device, or refused with this reason. On rte_vhost's thread.
  void started(const std::string& reason);

 private:
  static const rte_vhost_device_ops* operations();
  int onNewConnection(int vid);
  void onDestroyConnection(int vid);
  void onStopped(int vid);
  void change(State state);

  const std::string path_;
  UniqueFd changed_;
  UniqueFd memoryAlarm_;
  MemoryGuard guard_;
  dpdk::VhostWaker waker_;
  bool open_ = false;
  Mutex mutex_;
  int vid_ GUARDED_BY(mutex_) = -1;  // the connection
  State state_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::pmd
