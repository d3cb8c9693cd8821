// The vDPA device that DPDK has probed. rte_vhost only logs when the driver refuses to start it, so
// this class stands between the two and reports it.
#pragma once

#include <rte_dev.h>
#include <rte_vdpa.h>

#include <cstdint>
#include <functional>
#include <string>

#include "control.pb.h"
#include "deviceplugin/datapath/pmd/dpdk_log.h"
#include "deviceplugin/datapath/pmd/options.h"

struct rte_vdpa_dev_ops;

namespace vdpa::pmd {

// One a process: DPDK's callbacks carry no context.
class VdpaDevice {
 public:
  struct Events {
    // The driver started the device (empty reason) or refused, and why. On rte_vhost's thread.
    std::function<void(const std::string& reason)> started;
    // The kernel is removing the device, and waits for this process to release it. On a thread of
    // DPDK's.
    std::function<void()> removed;
  };

  // Throws std::runtime_error with the driver's errors if it has not accepted the device.
  VdpaDevice(const PmdOptions& options, DpdkLog& log, Events events);
  // The device must no longer be in use.
  ~VdpaDevice();
  VdpaDevice(const VdpaDevice&) = delete;
  VdpaDevice& operator=(const VdpaDevice&) = delete;

  rte_vdpa_device* handle() const { return device_; }
  uint32_t queuePairs() const { return queuePairs_; }
  uint64_t features() const { return features_; }

  // Empty if the driver counts nothing.
  control::PmdStats stats() const;

 private:
  static void onDeviceEvent(const char* name, rte_dev_event_type event, void* device);
  static int configure(int vid);
  static int cleanUp(int vid);
  static int protocolFeatures(rte_vdpa_device* device, uint64_t* features);

  const std::string id_;
  DpdkLog& log_;
  const std::string name_;  // DPDK's
  const Events events_;
  rte_vdpa_device* device_ = nullptr;
  uint32_t queuePairs_ = 0;
  uint64_t features_ = 0;
  int vid_ = -1;                         // the connection that the driver knows
  bool failed_ = false;                  // to start for it
  int (*configure_)(int vid) = nullptr;  // the driver's own
  int (*cleanUp_)(int vid) = nullptr;    // some have none
  int (*protocolFeatures_)(rte_vdpa_device* device, uint64_t* features) = nullptr;
};

}  // namespace vdpa::pmd
