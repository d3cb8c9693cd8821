#define ALLOW_EXPERIMENTAL_API  // rte_dev_event_callback_register()
#include "deviceplugin/datapath/pmd/vdpa_device.h"

#include <fmt/core.h>
#include <rte_dev.h>
#include <rte_vhost.h>
#include <sys/resource.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "deviceplugin/datapath/pmd/dpdk_log.h"
#include "deviceplugin/datapath/pmd/driver.h"
#include "deviceplugin/datapath/pmd/driver_interface.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {
namespace {

std::atomic<VdpaDevice*> instance{nullptr};

// "vdpa_test0,queues=2" -> "vdpa_test0"
std::string nameOf(const PmdOptions& options) {
  return options.vdev.empty() ? options.pci : options.vdev.substr(0, options.vdev.find(','));
}

std::string known(const PmdOptions& options) {
  return options.vdev.empty() ? ": " + functionsOf(findDriver(options.driver)) : "";
}

// Explains an error for which the kernel only returns ENOMEM.
std::string memoryLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format(
      " (RLIMIT_MEMLOCK is {} KiB here: if the pod's memory doesn't fit, raise it, or give the "
      "container CAP_SYS_RESOURCE)",
      limit.rlim_cur / 1024);
}

}  // namespace

VdpaDevice::VdpaDevice(const PmdOptions& options, DpdkLog& log, Events events)
    : id_(options.device), log_(log), name_(nameOf(options)), events_(std::move(events)) {
  device_ = rte_vdpa_find_device_by_name(name_.c_str());
  if (!device_) {
    const std::string errors = log.errors();
    throw std::runtime_error(fmt::format(
        "DPDK's {} driver does not accept {}: {}", options.driver, name_,
        errors.empty() ? "it is not among the devices that this driver knows" + known(options)
                       : errors));
  }
  // The two structures are declared here by hand: DPDK must agree with them.
  if (device_->device != rte_vdpa_get_rte_device(device_) || !device_->ops)
    throw std::runtime_error("this DPDK lays out its vDPA devices differently than 22.11 does");
  if (rte_vdpa_get_queue_num(device_, &queuePairs_) != 0 ||
      rte_vdpa_get_features(device_, &features_) != 0)
    throw std::runtime_error(
        fmt::format("cannot read the capabilities of {}: {}", id_, log.errors()));
  instance = this;
  rte_dev_event_callback_register(name_.c_str(), onDeviceEvent, this);
  configure_ = std::exchange(device_->ops->dev_conf, &VdpaDevice::configure);
  cleanUp_ = std::exchange(device_->ops->dev_cleanup, &VdpaDevice::cleanUp);
  protocolFeatures_ =
      std::exchange(device_->ops->get_protocol_features, &VdpaDevice::protocolFeatures);
}

VdpaDevice::~VdpaDevice() {
  device_->ops->dev_conf = configure_;
  device_->ops->dev_cleanup = cleanUp_;
  device_->ops->get_protocol_features = protocolFeatures_;
  rte_dev_event_callback_unregister(name_.c_str(), onDeviceEvent, this);
  instance = nullptr;
  if (rte_dev_remove(rte_vdpa_get_rte_device(device_)) != 0)
    log::warn("{}: its driver does not release it: {}", id_, log_.errors());
}

void VdpaDevice::onDeviceEvent(const char*, rte_dev_event_type event, void* device) {
  if (event == RTE_DEV_EVENT_REMOVE) static_cast<VdpaDevice*>(device)->events_.removed();
}

int VdpaDevice::configure(int vid) {
  VdpaDevice& self = *instance.load();
  // rte_vhost asks again with every message; the connection is about to be closed.
  if (self.failed_) return -1;
  self.vid_ = vid;
  self.log_.clearErrors();
  const int result = self.configure_(vid);
  if (result == 0) {
    self.events_.started({});
  } else {
    self.failed_ = true;
    const std::string errors = self.log_.errors();
    self.events_.started(fmt::format(
        "the driver cannot start {}: {}{}", self.id_,
        errors.empty() ? fmt::format("it returned {}", result) : errors, memoryLimit()));
  }
  return result;
}

// rte_vhost makes the driver clean up after a refused connection, too; the driver would mistake it
// for the one it serves.
int VdpaDevice::cleanUp(int vid) {
  VdpaDevice& self = *instance.load();
  if (self.vid_ >= 0 && self.vid_ != vid) return 0;
  self.vid_ = -1;
  self.failed_ = false;
  return self.cleanUp_ ? self.cleanUp_(vid) : 0;
}

// rte_vhost itself acknowledges messages and counts queue pairs, but only if the driver names these
// features; mlx5 doesn't name REPLY_ACK.
int VdpaDevice::protocolFeatures(rte_vdpa_device* device, uint64_t* features) {
  const int result = instance.load()->protocolFeatures_(device, features);
  *features |= 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK | 1ull << VHOST_USER_PROTOCOL_F_MQ;
  return result;
}

control::PmdStats VdpaDevice::stats() const {
  control::PmdStats all;
  const int count = rte_vdpa_get_stats_names(device_, nullptr, 0);
  if (count <= 0) return all;
  const auto size = static_cast<unsigned>(count);
  std::vector<rte_vdpa_stat_name> names(size);
  rte_vdpa_get_stats_names(device_, names.data(), size);
  for (uint32_t number = 0; number < queuePairs_ * 2; ++number) {
    std::vector<rte_vdpa_stat> stats(size);
    const int got = rte_vdpa_get_stats(device_, static_cast<uint16_t>(number), stats.data(), size);
    if (got <= 0) continue;  // not in use
    auto& queue = *all.add_queues();
    queue.set_queue(number);
    for (int i = 0; i < got && i < count; ++i) {
      const auto& stat = stats[static_cast<size_t>(i)];
      if (stat.id >= size) continue;
      auto& counter = *queue.add_counters();
      counter.set_name(names[stat.id].name);
      counter.set_value(stat.value);
    }
  }
  return all;
}

}  // namespace vdpa::pmd
