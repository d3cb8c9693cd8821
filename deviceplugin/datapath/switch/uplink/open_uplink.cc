#include "deviceplugin/datapath/switch/uplink/open_uplink.h"

#include <memory>
#include <utility>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"
#include "deviceplugin/datapath/switch/uplink/netdev.h"
#include "deviceplugin/datapath/switch/uplink/pci_function.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {

std::unique_ptr<Uplink> openUplink(const UplinkOptions& options) {
  auto device = !options.pci.empty() ? pciDevice(options)
                : options.xdp        ? xdpDevice(options)
                                     : packetDevice(options);
  return std::make_unique<DpdkUplink>(options.directory, std::move(device));
}

}  // namespace vdpa::vswitch
