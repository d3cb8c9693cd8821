// SPDX-License-Identifier: GPL-2.0-only
/* Functions, each with a management device, and the wires between them. */
#include <linux/slab.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/virtio_ids.h>
#include "testnic.h"

static DEFINE_SPINLOCK(wires_lock);	/* of functions[] and of their members from dev on */
static struct function *functions[MOST_FUNCTIONS];

static const struct vdpa_mgmtdev_ops settable = {
	.dev_add = nic_add, .dev_del = nic_del, .dev_set_attr = nic_set,
};
static const struct vdpa_mgmtdev_ops fixed = { .dev_add = nic_add, .dev_del = nic_del };
static struct virtio_device_id ids[] = { { VIRTIO_ID_NET, VIRTIO_DEV_ANY_ID }, { 0 } };

static void forget(struct function *function)
{
	spin_lock(&wires_lock);
	functions[function->number] = NULL;
	spin_unlock(&wires_lock);
	kfree(function);
}

/* Called when the PCI or auxiliary bus binds a driver to device: serialised per device only. */
struct function *function_create(const struct model *model, struct pci_dev *pci, struct device *device)
{
	struct function *function = kzalloc(sizeof(*function), GFP_KERNEL);
	int err;

	if (!function)
		return ERR_PTR(-ENOMEM);
	function->model = model;
	function->pci = pci;
	function->mtu = vport_mtu;
	INIT_LIST_HEAD(&function->incoming);
	function->mgmt.device = device;
	function->mgmt.ops = model->sets_mac ? &settable : &fixed;
	function->mgmt.id_table = ids;
	function->mgmt.config_attr_mask = model->attributes;
	function->mgmt.supported_features = model->features;
	function->mgmt.max_supported_vqs = 2 * clamp(pairs, 1u, (uint)MOST_PAIRS) + 1;

	spin_lock(&wires_lock);
	while (function->number < MOST_FUNCTIONS && functions[function->number])
		function->number++;
	if (function->number < MOST_FUNCTIONS)
		functions[function->number] = function;
	spin_unlock(&wires_lock);
	if (function->number == MOST_FUNCTIONS) {
		kfree(function);
		return ERR_PTR(-ENOSPC);
	}
	if (model->own_mac || vport_mac) {
		const u8 mac[ETH_ALEN] = { 0x52, 0x54, 0x00, 0x00, 0x0a, function->number };

		ether_addr_copy(function->mac, mac);
	}
	err = vdpa_mgmtdev_register(&function->mgmt);
	if (err) {
		forget(function);
		return ERR_PTR(err);
	}
	return function;
}

/* Removes its vDPA device too. */
void function_destroy(struct function *function)
{
	vdpa_mgmtdev_unregister(&function->mgmt);
	forget(function);
}

void wire_connect(struct function *function, struct netdev *dev)
{
	struct frame *frame, *next;

	spin_lock(&wires_lock);
	function->dev = dev;
	function->queued = 0;
	list_for_each_entry_safe(frame, next, &function->incoming, list)
		kfree(frame);
	INIT_LIST_HEAD(&function->incoming);
	spin_unlock(&wires_lock);
}

bool wire_send(struct function *function, struct frame *frame)
{
	struct function *peer;
	bool taken;

	spin_lock(&wires_lock);
	peer = functions[function->number ^ 1];
	taken = peer && peer->dev && peer->queued < MOST_QUEUED;
	if (taken) {
		list_add_tail(&frame->list, &peer->incoming);
		peer->queued++;
	}
	spin_unlock(&wires_lock);
	return taken;
}

struct frame *wire_receive(struct function *function)
{
	struct frame *frame;

	spin_lock(&wires_lock);
	frame = list_first_entry_or_null(&function->incoming, struct frame, list);
	if (frame) {
		list_del(&frame->list);
		function->queued--;
	}
	spin_unlock(&wires_lock);
	return frame;
}

void wire_wake_peer(struct function *function)
{
	struct function *peer;

	spin_lock(&wires_lock);
	peer = functions[function->number ^ 1];
	if (peer && peer->dev)
		vdpasim_schedule_work(&peer->dev->sim);
	spin_unlock(&wires_lock);
}
