// SPDX-License-Identifier: GPL-2.0-only
/* The packets of a vDPA device and the commands of its control queue; a thread of vdpa_sim's calls work(). */
#include <linux/slab.h>
#include <uapi/linux/virtio_net.h>
#include "testnic.h"

#define BURST 64	/* frames of a queue at a time */

/* It depends on the negotiated features; virtio 1.2, 5.1.2. */
u16 nic_control_index(const struct netdev *dev)
{
	return has(dev->sim.features, VIRTIO_NET_F_MQ) ? 2 * dev->pairs : 2;
}

static void complete_one(struct vdpasim_virtqueue *queue, size_t length)
{
	smp_wmb();	/* the buffer before the used ring */
	vringh_complete_iotlb(&queue->vring, queue->head, length);
	smp_wmb();	/* the used ring before the interrupt */
	local_bh_disable();
	if (vringh_need_notify_iotlb(&queue->vring) > 0)
		vringh_notify(&queue->vring);
	local_bh_enable();
}

static u8 obey(struct netdev *dev, struct vdpasim_virtqueue *queue)
{
	struct virtio_net_config *config = dev->sim.config;
	struct virtio_net_ctrl_hdr header;
	u8 mac[ETH_ALEN];
	__virtio16 count;
	u16 wanted;

	if (vringh_iov_pull_iotlb(&queue->vring, &queue->in_iov, &header, sizeof(header)) != sizeof(header))
		return VIRTIO_NET_ERR;
	if (header.class == VIRTIO_NET_CTRL_MAC && header.cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		if (vringh_iov_pull_iotlb(&queue->vring, &queue->in_iov, mac, ETH_ALEN) != ETH_ALEN)
			return VIRTIO_NET_ERR;
		ether_addr_copy(config->mac, mac);
		return VIRTIO_NET_OK;
	}
	if (header.class == VIRTIO_NET_CTRL_MQ && header.cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) {
		if (vringh_iov_pull_iotlb(&queue->vring, &queue->in_iov, &count, sizeof(count)) != sizeof(count))
			return VIRTIO_NET_ERR;
		wanted = vdpasim16_to_cpu(&dev->sim, count);
		if (wanted < 1 || wanted > dev->pairs)
			return VIRTIO_NET_ERR;
		dev->active = wanted;
		return VIRTIO_NET_OK;
	}
	return VIRTIO_NET_ERR;
}

static void control(struct netdev *dev)
{
	struct vdpasim_virtqueue *queue;
	u8 status;

	if (!has(dev->sim.features, VIRTIO_NET_F_CTRL_VQ))
		return;
	queue = &dev->sim.vqs[nic_control_index(dev)];
	while (queue->ready &&
	       vringh_getdesc_iotlb(&queue->vring, &queue->in_iov, &queue->out_iov, &queue->head, GFP_ATOMIC) > 0) {
		status = obey(dev, queue);
		complete_one(queue, vringh_iov_push_iotlb(&queue->vring, &queue->out_iov, &status, sizeof(status)));
		vringh_kiov_cleanup(&queue->in_iov);
		vringh_kiov_cleanup(&queue->out_iov);
	}
}

/* Takes a frame from a queue; false: there is none. */
static bool send_one(struct netdev *dev, int pair)
{
	struct vdpasim_virtqueue *queue = &dev->sim.vqs[2 * pair + 1];
	struct frame *frame;
	ssize_t length;

	if (!queue->ready ||
	    vringh_getdesc_iotlb(&queue->vring, &queue->out_iov, NULL, &queue->head, GFP_ATOMIC) <= 0)
		return false;
	length = vringh_iov_pull_iotlb(&queue->vring, &queue->out_iov, dev->buffer, FRAME);
	complete_one(queue, 0);
	dev->packets[pair]++;
	if (length < (ssize_t)sizeof(struct virtio_net_hdr_v1))
		return true;
	frame = kmalloc(sizeof(*frame) + length, GFP_KERNEL);
	if (!frame)
		return true;
	frame->length = length;
	frame->pair = pair;
	memset(frame->data, 0, sizeof(struct virtio_net_hdr_v1));
	memcpy(frame->data + sizeof(struct virtio_net_hdr_v1), dev->buffer + sizeof(struct virtio_net_hdr_v1),
	       length - sizeof(struct virtio_net_hdr_v1));
	((struct virtio_net_hdr_v1 *)frame->data)->num_buffers = cpu_to_le16(1);
	if (!wire_send(dev->function, frame))
		kfree(frame);
	return true;
}

static bool send(struct netdev *dev)
{
	bool any = false;
	int pair, n;

	for (pair = 0; pair < dev->active; pair++)
		for (n = 0; n < BURST && send_one(dev, pair); n++)
			any = true;
	return any;
}

/* A frame without a buffer is dropped. */
static void receive(struct netdev *dev)
{
	struct vdpasim_virtqueue *queue;
	struct frame *frame;
	ssize_t length;

	while ((frame = wire_receive(dev->function))) {
		queue = &dev->sim.vqs[2 * (frame->pair % dev->active)];
		if (queue->ready &&
		    vringh_getdesc_iotlb(&queue->vring, NULL, &queue->in_iov, &queue->head, GFP_ATOMIC) > 0) {
			length = vringh_iov_push_iotlb(&queue->vring, &queue->in_iov, frame->data, frame->length);
			complete_one(queue, length > 0 ? length : 0);
		}
		kfree(frame);
	}
}

void nic_work(struct vdpasim *sim)
{
	struct netdev *dev = container_of(sim, struct netdev, sim);
	bool sent = false;

	if (dev->function->model->data_kick)
		return;	/* its rings are packed, which vringh doesn't know */
	mutex_lock(&sim->mutex);
	if (sim->running && (sim->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
		control(dev);
		sent = send(dev);
		receive(dev);
	}
	mutex_unlock(&sim->mutex);
	if (sent) {
		vdpasim_schedule_work(sim);
		wire_wake_peer(dev->function);
	}
}
