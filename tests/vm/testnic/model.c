// SPDX-License-Identifier: GPL-2.0-only
/* The rules of vendors' drivers, from drivers/vdpa of Linux 6.12, without those that this NIC's packets don't need. */
#include <linux/virtio_config.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/virtio_net.h>
#include "testnic.h"

#define BASE (BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_NET_F_MAC) | \
	      BIT_ULL(VIRTIO_NET_F_MTU) | BIT_ULL(VIRTIO_NET_F_STATUS))
#define CONTROL (BIT_ULL(VIRTIO_NET_F_CTRL_VQ) | BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT_ULL(VIRTIO_NET_F_MQ))

const struct model models[] = {
	{	/* mlx5/net/mlx5_vnet.c, mlx5_vdpa_dev_add() and the functions after it */
		.driver = "mlx5_core",
		.vendor = 0x15b3, .device = 0x101e, .subsystem_vendor = 0x15b3, .subsystem_device = 0x0058,
		.scalable = true,
		.features = BASE | CONTROL | BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
		.unasked = BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
		.attributes = BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR) | BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MAX_VQP) |
			      BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MTU) | BIT_ULL(VDPA_ATTR_DEV_FEATURES),
		.one_pair = true,
		.sets_mac = true,
		.control_group = true,
		.suspends = true,
		.add_again = -ENOSPC,
	},
	{	/* pds/vdpa_dev.c, pds_vdpa_dev_add() and pds_vdpa_get_mgmt_info() */
		.driver = "pds_core",
		.vendor = 0x1dd8, .device = 0x100b, .subsystem_vendor = 0x1dd8, .subsystem_device = 0x5001,
		.vf_child = "vDPA",
		.features = BASE | CONTROL,
		.attributes = BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR) | BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MAX_VQP) |
			      BIT_ULL(VDPA_ATTR_DEV_FEATURES),
		.own_mac = true,
		.random_mac = true,
		.add_again = -EOPNOTSUPP,
	},
	{	/* ifcvf/ifcvf_main.c, ifcvf_vdpa_dev_add() and ifcvf_pci_ids; a second device fails there by its queues */
		.driver = "ifcvf",
		.vendor = 0x1af4, .device = 0x1041, .subsystem_vendor = 0x8086, .subsystem_device = 0x001a,
		.features = BASE | CONTROL,
		.attributes = BIT_ULL(VDPA_ATTR_DEV_FEATURES),
		.own_mac = true,
		.add_again = -EBUSY,
	},
	{	/* octeon_ep/octep_vdpa_main.c, octep_vdpa_dev_add(), octep_vdpa_kick_vq() and octep_verify_features() */
		.driver = "octep_vdpa",
		.vendor = 0x177d, .device = 0xb903, .subsystem_vendor = 0x177d, .subsystem_device = 0xb903,
		.features = BASE | BIT_ULL(VIRTIO_F_NOTIFICATION_DATA) | BIT_ULL(VIRTIO_F_RING_PACKED),
		.attributes = BIT_ULL(VDPA_ATTR_DEV_FEATURES),
		.own_mac = true,
		.data_kick = true,
		.add_again = -EBUSY,
	},
};
const int model_count = ARRAY_SIZE(models);
