// The kinds of backing, and which one a device has.
#pragma once

#include <type_traits>

#include "deviceplugin/datapath/backends/dpdk_backend.h"
#include "deviceplugin/datapath/backends/kernel_backend.h"
#include "deviceplugin/datapath/backends/software_backend.h"
#include "deviceplugin/datapath/backends/virtio_vdpa_backend.h"

namespace vdpa {

class Backings {
 public:
  Backings(SwitchSet& switches, const VdpaBus& bus, Provisioner& provisioner,
           const Programs& programs, const Paths& paths, std::function<void()> onChange)
      : software(switches),
        kernel(bus, provisioner),
        netdev(bus, provisioner),
        dpdk(programs, paths, std::move(onChange)) {}

  SoftwareBacking software;
  KernelBacking kernel;
  NetdevBacking netdev;
  DpdkBacking dpdk;

  Backing& of(const DeviceConfig& device) { return *pick(*this, device); }
  const Backing& of(const DeviceConfig& device) const { return *pick(*this, device); }

 private:
  template <typename Self>
  static auto pick(Self& self, const DeviceConfig& device)
      -> std::conditional_t<std::is_const_v<Self>, const Backing*, Backing*> {
    if (device.backend == Backend::dpdk) return &self.dpdk;
    if (device.backend == Backend::software) return &self.software;
    if (device.attach == Attach::virtioVdpa) return &self.netdev;
    return &self.kernel;
  }
};

}  // namespace vdpa
