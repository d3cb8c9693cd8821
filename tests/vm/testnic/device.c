// SPDX-License-Identifier: GPL-2.0-only
/* vDPA devices: "vdpa dev add" by the model's rules, and the differences from vdpa_sim's devices. */
#include <linux/slab.h>
#include <net/netlink.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/virtio_config.h>
#include <uapi/linux/virtio_ids.h>
#include <uapi/linux/virtio_net.h>
#include "testnic.h"

static struct netdev *to_netdev(const struct vdpa_device *device)
{
	return container_of(device, struct netdev, sim.vdpa);
}

static int set_driver_features(struct vdpa_device *device, u64 features)
{
	const u64 needed = BIT_ULL(VIRTIO_F_NOTIFICATION_DATA) | BIT_ULL(VIRTIO_F_RING_PACKED);
	struct netdev *dev = to_netdev(device);

	if (dev->function->model->data_kick && (features & needed) != needed)
		return -EOPNOTSUPP;
	if (!has(features, VIRTIO_F_ACCESS_PLATFORM))
		return -EINVAL;
	mutex_lock(&dev->sim.mutex);
	dev->sim.features = features & dev->features;
	dev->active = 1;
	mutex_unlock(&dev->sim.mutex);
	return 0;
}

static void kick(struct vdpa_device *device, u16 index)
{
	struct netdev *dev = to_netdev(device);
	pid_t kicker = task_pid_nr(current);

	dev->kicked[index].kicks++;
	if (dev->kicked[index].kicker != kicker) {
		dev->kicked[index].changes++;
		dev->kicked[index].kicker = kicker;
	}
	if (!dev->function->model->data_kick && dev->sim.vqs[index].ready)
		vdpasim_schedule_work(&dev->sim);
}

static void kick_with_data(struct vdpa_device *device, u32 data)
{
}

static u32 group_of(struct vdpa_device *device, u16 index)
{
	return index == nic_control_index(to_netdev(device));
}

static int set_group_asid(struct vdpa_device *device, unsigned int group, unsigned int asid)
{
	struct netdev *dev = to_netdev(device);
	int i;

	if (asid >= dev->sim.dev_attr.nas)
		return -EINVAL;
	mutex_lock(&dev->sim.mutex);
	for (i = 0; i < dev->sim.dev_attr.nvqs; i++)
		if (group_of(device, i) == group)
			vringh_set_iotlb(&dev->sim.vqs[i].vring, &dev->sim.iommu[asid], &dev->sim.iommu_lock);
	mutex_unlock(&dev->sim.mutex);
	return 0;
}

static int stat(struct sk_buff *message, const char *name, u64 value)
{
	return nla_put_string(message, VDPA_ATTR_DEV_VENDOR_ATTR_NAME, name) ?:
	       nla_put_u64_64bit(message, VDPA_ATTR_DEV_VENDOR_ATTR_VALUE, value, VDPA_ATTR_PAD);
}

static int get_stats(struct vdpasim *sim, u16 index, struct sk_buff *message, struct netlink_ext_ack *extack)
{
	struct netdev *dev = container_of(sim, struct netdev, sim);

	if (index >= sim->dev_attr.nvqs)
		return -EINVAL;
	return stat(message, "kicks", dev->kicked[index].kicks) ?:
	       stat(message, "kicker", dev->kicked[index].kicker) ?:
	       stat(message, "kicker changes", dev->kicked[index].changes) ?:
	       stat(message, "packets", index & 1 ? dev->packets[index / 2] : 0);
}

static void get_config(struct vdpasim *sim, void *config)
{
	((struct virtio_net_config *)config)->status = cpu_to_vdpasim16(sim, VIRTIO_NET_S_LINK_UP);
}

static void device_free(struct vdpasim *sim)
{
}

static void set_operations(struct netdev *dev)
{
	const struct model *model = dev->function->model;

	dev->ops = *dev->sim.vdpa.config;
	dev->ops.set_driver_features = set_driver_features;
	dev->ops.kick_vq = kick;
	dev->ops.kick_vq_with_data = model->data_kick ? kick_with_data : NULL;
	dev->ops.get_vq_group = group_of;
	dev->ops.set_group_asid = model->control_group ? set_group_asid : NULL;
	if (!model->control_group)
		dev->ops.get_vq_group = NULL;
	if (!model->suspends) {
		dev->ops.suspend = NULL;
		dev->ops.resume = NULL;
		dev->ops.get_backend_features = NULL;
	}
	dev->sim.vdpa.config = &dev->ops;
}

/* The device's features and its MAC, in this order of mlx5_vdpa_dev_add(). */
static int choose(struct function *function, const struct vdpa_dev_set_config *asked, u64 *features, u8 *mac)
{
	const u64 needed = BIT_ULL(VIRTIO_F_VERSION_1) |
			   (function->model->data_kick ? BIT_ULL(VIRTIO_F_NOTIFICATION_DATA) | BIT_ULL(VIRTIO_F_RING_PACKED)
						       : BIT_ULL(VIRTIO_F_ACCESS_PLATFORM));
	const bool named = asked->mask & BIT_ULL(VDPA_ATTR_DEV_FEATURES);

	*features = function->model->features & ~function->model->unasked;
	if (named) {
		if (asked->device_features & ~function->model->features)
			return -EINVAL;
		*features = asked->device_features;
	}
	if ((*features & needed) != needed)
		return -EOPNOTSUPP;

	ether_addr_copy(mac, function->mac);
	if (asked->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR))
		ether_addr_copy(mac, asked->net.mac);
	if (!is_zero_ether_addr(mac) || !has(*features, VIRTIO_NET_F_MAC))
		return 0;
	if (function->model->random_mac)
		eth_random_addr(mac);
	else if (!named)
		*features &= ~BIT_ULL(VIRTIO_NET_F_MAC);	/* then it never shows a MAC, even if one is set */
	if (!is_zero_ether_addr(mac) || !has(*features, VIRTIO_NET_F_MAC))
		return 0;
	zero_macs++;
	return -EINVAL;
}

int nic_add(struct vdpa_mgmt_dev *mgmt, const char *name, const struct vdpa_dev_set_config *asked)
{
	struct function *function = container_of(mgmt, struct function, mgmt);
	const int most = (mgmt->max_supported_vqs - 1) / 2;
	struct vdpa_dev_set_config none = {};
	struct vdpasim_dev_attr attr = {};
	int err, count = function->model->one_pair ? 1 : most;
	struct virtio_net_config *config;
	struct vdpasim *sim;
	struct netdev *dev;
	u8 mac[ETH_ALEN];

	if (function->dev)
		return function->model->add_again;
	err = choose(function, asked, &attr.supported_features, mac);
	if (err)
		return err;
	if (asked->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MAX_VQP))
		count = asked->net.max_vq_pairs;
	if (count > most)
		return function->model->one_pair ? -EINVAL : -ENOSPC;
	if (asked->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MTU))
		function->mtu = asked->net.mtu;

	attr.mgmt_dev = mgmt;
	attr.name = name;
	attr.id = VIRTIO_ID_NET;
	attr.nvqs = 2 * count + has(attr.supported_features, VIRTIO_NET_F_CTRL_VQ);
	attr.ngroups = attr.nas = function->model->control_group ? 2 : 1;
	attr.alloc_size = sizeof(struct netdev);
	attr.config_size = sizeof(struct virtio_net_config);
	attr.get_config = get_config;
	attr.get_stats = get_stats;
	attr.work_fn = nic_work;
	attr.free = device_free;
	sim = vdpasim_create(&attr, &none);
	if (IS_ERR(sim))
		return PTR_ERR(sim);
	dev = container_of(sim, struct netdev, sim);
	dev->function = function;
	dev->pairs = count;
	dev->active = 1;
	dev->features = attr.supported_features;
	set_operations(dev);
	config = sim->config;
	ether_addr_copy(config->mac, mac);
	config->mtu = cpu_to_le16(function->mtu);
	config->max_virtqueue_pairs = cpu_to_le16(count);
	sim->vdpa.dev.parent = mgmt->device;
	sim->vdpa.dma_dev = &function->pci->dev;
	err = _vdpa_register_device(&sim->vdpa, attr.nvqs);
	if (err) {
		put_device(&sim->vdpa.dev);
		return err;
	}
	wire_connect(function, dev);
	return 0;
}

void nic_del(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *device)
{
	wire_connect(container_of(mgmt, struct function, mgmt), NULL);
	_vdpa_unregister_device(device);
}

int nic_set(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *device, const struct vdpa_dev_set_config *asked)
{
	struct netdev *dev = to_netdev(device);
	struct virtio_net_config *config = dev->sim.config;

	if (!(asked->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR)))
		return -EOPNOTSUPP;
	mutex_lock(&dev->sim.mutex);
	ether_addr_copy(config->mac, asked->net.mac);
	mutex_unlock(&dev->sim.mutex);
	return 0;
}
