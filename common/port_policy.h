// The settings that a resource's configuration gives each of its software ports, in addition to
// those that the pods' networks request.
#pragma once

namespace vdpa {

// A port's limit of frames to everybody costs each of the other ports as many received frames. A
// pod's ARP, neighbour discovery and DHCP need some hundred a second on a large node. A stream to a
// station behind the uplink that stays silent until its address is forgotten is flooded too: this
// leaves it 120 Mbit/s of frames of 1,500 bytes. At this rate, a port of 64 costs the switch
// 630,000 copies a second, some percent of a core.
inline constexpr unsigned kDefaultStormLimit = 10000;
inline constexpr unsigned kMaxStormLimit = 1000000;

struct PortPolicy {
  // Whether pods are offered to leave checksums and segmentation to the other side.
  bool offloads = true;
  // Frames per second that the pod may send to broadcast and unknown unicast addresses; 0: no
  // limit.
  unsigned stormLimit = kDefaultStormLimit;

  bool operator==(const PortPolicy&) const = default;
};

}  // namespace vdpa
