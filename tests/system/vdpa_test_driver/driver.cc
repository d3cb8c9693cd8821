// The DPDK driver of the software device:
// --vdev=vdpa_test0[,queues=N][,fail_conf=N][,crash_after=N]
// [,unplug_after=N]
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_kvargs.h>
#include <rte_log.h>
#include <rte_vhost.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "deviceplugin/datapath/pmd/driver_interface.h"
#include "tests/system/vdpa_test_driver/device.h"

// DPDK's interface of virtual devices' drivers, which distributions don't install either. Source:
// DPDK 22.11, drivers/bus/vdev/bus_vdev_driver.h and lib/eal/include/dev_driver.h.
extern "C" {

struct rte_driver {
  rte_driver* next;
  rte_driver** previous;
  const char* name;
  const char* alias;
};

struct rte_vdev_device {
  rte_vdev_device* next;
  rte_vdev_device** previous;
  // an rte_device follows
};

struct rte_vdev_driver {
  rte_vdev_driver* next;
  rte_vdev_driver** previous;
  rte_driver driver;
  int (*probe)(rte_vdev_device* device);
  int (*remove)(rte_vdev_device* device);
  int (*mapMemory)(rte_vdev_device* device, void* address, uint64_t iova, size_t length);
  int (*unmapMemory)(rte_vdev_device* device, void* address, uint64_t iova, size_t length);
  uint32_t flags;
};

void rte_vdev_register(rte_vdev_driver* driver);
void rte_vdev_unregister(rte_vdev_driver* driver);
rte_vdpa_device* rte_vdpa_register_device(rte_device* device, rte_vdpa_dev_ops* operations);
int rte_vdpa_unregister_device(rte_vdpa_device* device);

}  // extern "C"

namespace vdpa_test {
namespace {

// Virtio 1.2, 5.1.3 and 6; PROTOCOL_FEATURES is vhost-user's.
constexpr uint64_t kFeatures = 1ull << 17 /* CTRL_VQ */ | 1ull << 18 /* CTRL_RX */ |
                               1ull << 22 /* MQ */ | 1ull << 27 /* ANY_LAYOUT */ |
                               1ull << 30 /* PROTOCOL_FEATURES */ | 1ull << 32 /* VERSION_1 */ |
                               1ull << 34 /* RING_PACKED */;

constexpr const char* kStats[] = {"packets", "bytes"};

std::unique_ptr<Device> device;  // one per process, as in vdpa-pmd
rte_vdpa_device* registered = nullptr;

void complain(const char* what) {
  rte_log(RTE_LOG_ERR, RTE_LOGTYPE_PMD, "vdpa_test: %s\n", what);
}

int getQueuePairs(rte_vdpa_device*, uint32_t* pairs) {
  *pairs = device->options().queuePairs;
  return 0;
}

int getFeatures(rte_vdpa_device*, uint64_t* features) {
  *features = kFeatures;
  return 0;
}

// As in mlx5: without REPLY_ACK.
int getProtocolFeatures(rte_vdpa_device*, uint64_t* features) {
  *features = 1ull << VHOST_USER_PROTOCOL_F_MQ;
  return 0;
}

int configure(int vid) {
  if (device->start(vid)) return 0;
  complain("the card has no room for this memory");
  return -1;
}

int close(int) {
  device->stop();
  return 0;
}

int cleanUp(int) {
  device->forgetConnection();
  return 0;
}

int setVringState(int, int ring, int enabled) {
  device->setEnabled(static_cast<uint16_t>(ring), enabled != 0);
  return 0;
}

int setFeatures(int) {
  return 0;
}

int getStatsNames(rte_vdpa_device*, rte_vdpa_stat_name* names, unsigned size) {
  for (unsigned i = 0; names && i < size && i < std::size(kStats); ++i)
    std::strncpy(names[i].name, kStats[i], sizeof names[i].name - 1);
  return std::size(kStats);
}

int getStats(rte_vdpa_device*, int queue, rte_vdpa_stat* stats, unsigned count) {
  if (count < std::size(kStats)) return -1;
  const auto counters = device->counters(static_cast<uint16_t>(queue));
  stats[0] = {0, counters.packets};
  stats[1] = {1, counters.bytes};
  return std::size(kStats);
}

rte_vdpa_dev_ops operations = [] {
  rte_vdpa_dev_ops table{};
  table.get_queue_num = getQueuePairs;
  table.get_features = getFeatures;
  table.get_protocol_features = getProtocolFeatures;
  table.dev_conf = configure;
  table.dev_close = close;
  table.dev_cleanup = cleanUp;
  table.set_vring_state = setVringState;
  table.set_features = setFeatures;
  table.get_stats_names = getStatsNames;
  table.get_stats = getStats;
  return table;
}();

int parse(const char* key, const char* value, void* options) {
  auto& parsed = *static_cast<Options*>(options);
  try {
    const uint64_t number = std::stoull(value);
    if (key == std::string("queues")) parsed.queuePairs = static_cast<uint32_t>(number);
    if (key == std::string("fail_conf")) parsed.failingStarts = number;
    if (key == std::string("crash_after")) parsed.crashAfter = number;
    if (key == std::string("unplug_after")) parsed.unplugAfter = number;
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

int probe(rte_vdev_device* virtualDevice) {
  static const char* const keys[] = {"queues", "fail_conf", "crash_after", "unplug_after", nullptr};
  auto* generic = reinterpret_cast<rte_device*>(virtualDevice + 1);
  const rte_devargs* devargs = rte_dev_devargs(generic);
  Options options;
  options.name = rte_dev_name(generic);
  rte_kvargs* arguments = rte_kvargs_parse(devargs && devargs->args ? devargs->args : "", keys);
  if (!arguments || rte_kvargs_process(arguments, nullptr, parse, &options) != 0) {
    complain("devargs: expected queues=N, fail_conf=N, crash_after=N, unplug_after=N");
    rte_kvargs_free(arguments);
    return -1;
  }
  rte_kvargs_free(arguments);
  if (device) return -1;
  device = std::make_unique<Device>(options);
  registered = rte_vdpa_register_device(generic, &operations);
  return registered ? 0 : -1;
}

int remove(rte_vdev_device*) {
  rte_vdpa_unregister_device(registered);
  device.reset();
  return 0;
}

rte_vdev_driver driver = [] {
  rte_vdev_driver description{};
  description.driver.name = "vdpa_test";
  description.probe = probe;
  description.remove = remove;
  return description;
}();

// DPDK finds drivers by what their libraries register when they are loaded.
const struct Registration {
  Registration() { rte_vdev_register(&driver); }
  ~Registration() { rte_vdev_unregister(&driver); }
} registration;

}  // namespace
}  // namespace vdpa_test
