// The switch's connection to the outside of the node, as the pollers see it. vdpa-switch has none;
// vdpa-switch-dpdk implements it with DPDK (switch/uplink/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {

// A received frame, in the uplink's memory until release().
struct UplinkFrame {
  const std::byte* data;
  uint32_t length;
  bool checked = false;  // the device has found its checksum to be right
};

class Uplink {
 public:
  virtual ~Uplink() = default;

  // Each poller has a queue of its own; its number is the poller's. All calls of a queue are its
  // poller's.
  virtual size_t receive(unsigned queue, std::span<UplinkFrame> frames) = 0;
  virtual void release(unsigned queue) = 0;  // what the last receive() returned

  // The offloads that it can do itself for frames with a header.
  virtual Offloads offloads() const = 0;
  struct Outgoing {
    const virtqueue::Frame* frame;
    virtqueue::NetHeader header;  // as sanitised; needs no more than offloads(), and no segments of
                                  // packets with IPv6 extension headers
    uint16_t vlan = 0;            // to be tagged with; 0: none
  };
  // Copies the frames and sends them; returns how many were sent. Adds to `noMemory` those dropped
  // because no buffer was free.
  virtual size_t send(unsigned queue, std::span<const Outgoing> frames, size_t& noMemory) = 0;

  // Readable after a frame has come since armWake(). -1: the queue can only be polled.
  virtual int wakeFd(unsigned queue) const = 0;
  virtual void armWake(unsigned queue) = 0;
  virtual void disarmWake(unsigned queue) = 0;
};

}  // namespace vdpa::vswitch
