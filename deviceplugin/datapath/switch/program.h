// The two programs of the switch: vdpa-switch, which has no DPDK in it, and vdpa-switch-dpdk, which
// also has uplinks. Everything else is the same.
#pragma once

#include <functional>
#include <memory>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {

// Throws std::runtime_error that names the uplink, the problem and the remedy.
using OpenUplink = std::function<std::unique_ptr<Uplink>(const UplinkOptions&)>;

// main(): parses the arguments and runs the switch. `program` is its name, for the log and for
// errors. `open` empty: uplinks are refused, naming the program that has them.
int runSwitch(const char* program, int argc, char** argv, const OpenUplink& open);

}  // namespace vdpa::vswitch
