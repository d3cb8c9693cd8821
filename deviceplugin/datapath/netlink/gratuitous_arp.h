// Announces a netdev's addresses to its neighbours, so that they stop sending to the previous
// holder.
//
// Source: gratuitous ARP as in RFC 5227, section 3; unsolicited neighbour advertisements as in
// RFC 4861, section 7.2.6.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/mac_address.h"

namespace vdpa::datapath {

// The Ethernet frame for one address ("10.0.0.2/24", "fd00::2/64"). Throws std::system_error.
std::vector<uint8_t> gratuitousArp(const MacAddress& mac, const std::string& address);

// Sends a frame for each address, in the calling thread's network namespace, on the netdev with
// this index and MAC. Throws std::system_error.
void sendGratuitousArp(unsigned index, const MacAddress& mac,
                       const std::vector<std::string>& addresses);

}  // namespace vdpa::datapath
