/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * testnic: a NIC for tests, with the rules of vendors' vDPA drivers. As a kernel module it has the kernel's license, in
 * COPYING; no part of it is in the project's programs or images.
 *
 * It registers PCI drivers with the names of mlx5_core, pds_core, ifcvf and octep_vdpa, which take any function that is
 * bound to them by driver_override. The function then has a vendor's PCI IDs, and sysfs and the vDPA management bus show
 * the same as with that vendor's driver of Linux 6.12. A model holds the differences between the drivers. The core of
 * vdpa_sim moves the packets.
 *
 * Functions are wired in pairs: number 0 to 1, 2 to 3, and so on, in the order in which they appear; free numbers are
 * reused. Pair N of a device sends to pair N of its peer.
 */
#ifndef TESTNIC_H
#define TESTNIC_H

#include <linux/auxiliary_bus.h>
#include <linux/etherdevice.h>
#include <linux/list.h>
#include <linux/pci.h>
#include <linux/vdpa.h>
#include "vdpa_sim.h"

#define MOST_FUNCTIONS 64
#define MOST_PAIRS 16
#define MOST_QUEUED 2048	/* frames between two functions */
#define FRAME 9216		/* bytes, with virtio-net's header */

/* The behaviour of a vendor's driver; model.c cites the source of each rule. */
struct model {
	const char *driver;		/* of the PCI function */
	u16 vendor, device, subsystem_vendor, subsystem_device;
	bool scalable;			/* a function other than a VF has scalable functions, and no management device */
	const char *vf_child;		/* a VF's management device is this device on the auxiliary bus; NULL: the VF */
	u64 features;			/* all that "vdpa dev add" can request */
	u64 unasked;			/* those that a device lacks unless they are requested */
	u64 attributes;			/* of "vdpa dev add" */
	bool one_pair;			/* without max_vqp; else all pairs */
	bool own_mac;			/* a function has a MAC; else that depends on the module's parameter */
	bool random_mac;		/* a zero MAC becomes a random one, not a device without F_MAC */
	bool sets_mac;			/* "vdpa dev set" */
	bool control_group;		/* the control queue is in a group and can be in an address space of its own */
	bool suspends;			/* and resumes */
	bool data_kick;			/* needs NOTIFICATION_DATA and RING_PACKED; its kick without data does nothing */
	int add_again;			/* the error for a second device */
};

struct netdev;

/* A function that can have one vDPA device: a VF or a part of it, or a scalable function. */
struct function {
	struct vdpa_mgmt_dev mgmt;
	const struct model *model;
	struct pci_dev *pci;
	int number;
	u8 mac[ETH_ALEN];
	u16 mtu;			/* like a port's, it outlives a vDPA device */
	struct netdev *dev;		/* this and the rest: under wires_lock (function.c) */
	struct list_head incoming;
	int queued;
};

struct frame {
	struct list_head list;
	u32 length;
	u16 pair;
	u8 data[];
};

/* A vDPA device. Members without another lock are guarded by sim.mutex. */
struct netdev {
	struct vdpasim sim;
	struct vdpa_config_ops ops;
	struct function *function;
	u16 pairs, active;
	u64 features;			/* the device's */
	u64 packets[MOST_PAIRS];	/* sent */
	/* A queue's kicks, and how many came from another task than the one before: read by "vdpa dev vstats show". */
	struct {
		u64 kicks, changes;
		pid_t kicker;
	} kicked[2 * MOST_PAIRS + 1];
	u8 buffer[FRAME];
};

extern const struct model models[];
extern const int model_count;

/* main.c: the module's parameters, which a function takes over when it appears. */
extern uint pairs, vport_mtu;
extern bool vport_mac;
extern uint zero_macs;	/* how often F_MAC was requested without a MAC */

/* function.c */
struct function *function_create(const struct model *model, struct pci_dev *pci, struct device *device);
void function_destroy(struct function *function);
void wire_connect(struct function *function, struct netdev *dev);	/* NULL: its device is being removed */
bool wire_send(struct function *function, struct frame *frame);	/* false: the caller keeps the frame */
struct frame *wire_receive(struct function *function);
void wire_wake_peer(struct function *function);

/* device.c: of the management devices */
int nic_add(struct vdpa_mgmt_dev *mgmt, const char *name, const struct vdpa_dev_set_config *asked);
void nic_del(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *device);
int nic_set(struct vdpa_mgmt_dev *mgmt, struct vdpa_device *device, const struct vdpa_dev_set_config *asked);

/* packets.c */
void nic_work(struct vdpasim *sim);
u16 nic_control_index(const struct netdev *dev);

static inline bool has(u64 features, int bit)
{
	return features & BIT_ULL(bit);
}

#endif
