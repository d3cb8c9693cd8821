// DPDK's interface of vDPA drivers, which distributions don't install (vdpa_driver.h): as much of
// it as is used here. Source: DPDK 22.11, lib/vhost/vdpa_driver.h; the same from ABI 23 to 24.
#pragma once

#include <rte_vdpa.h>

#include <cstdint>

struct rte_device;

extern "C" {

struct rte_vdpa_dev_ops {
  int (*get_queue_num)(rte_vdpa_device* device, uint32_t* pairs);
  int (*get_features)(rte_vdpa_device* device, uint64_t* features);
  int (*get_protocol_features)(rte_vdpa_device* device, uint64_t* features);
  int (*dev_conf)(int vid);
  int (*dev_close)(int vid);
  int (*dev_cleanup)(int vid);
  int (*set_vring_state)(int vid, int vring, int state);
  int (*set_features)(int vid);
  int (*migration_done)(int vid);
  int (*get_vfio_group_fd)(int vid);
  int (*get_vfio_device_fd)(int vid);
  int (*get_notify_area)(int vid, int queue, uint64_t* offset, uint64_t* size);
  int (*get_stats_names)(rte_vdpa_device* device, rte_vdpa_stat_name* names, unsigned size);
  int (*get_stats)(rte_vdpa_device* device, int queue, rte_vdpa_stat* stats, unsigned count);
  int (*reset_stats)(rte_vdpa_device* device, int queue);
  int (*get_config)(int vid, uint8_t* config, uint32_t size);
  int (*set_config)(int vid, uint8_t* config, uint32_t offset, uint32_t size, uint32_t flags);
  int (*get_dev_type)(rte_vdpa_device* device, uint32_t* type);
};

struct rte_vdpa_device {
  rte_vdpa_device* next;
  rte_vdpa_device** previous;
  rte_device* device;
  rte_vdpa_dev_ops* ops;
  uint32_t type;
};

}  // extern "C"
