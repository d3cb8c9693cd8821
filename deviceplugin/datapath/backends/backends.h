// The kinds of backend, and which one a device has.
#pragma once

#include <type_traits>

#include "deviceplugin/datapath/backends/dpdk_backend.h"
#include "deviceplugin/datapath/backends/kernel_backend.h"
#include "deviceplugin/datapath/backends/software_backend.h"
#include "deviceplugin/datapath/backends/virtio_vdpa_backend.h"

namespace vdpa::datapath {

class Backends {
 public:
  Backends(EventThread& thread, SwitchSet& switches, const VdpaBus& bus, Provisioner& provisioner,
           const Programs& programs, const Paths& paths, std::function<void()> onChange)
      : software(switches),
        kernel(bus, provisioner),
        netdev(bus, provisioner),
        dpdk(thread, programs, paths, std::move(onChange)) {}

  SoftwareBackend software;
  KernelBackend kernel;
  VirtioVdpaBackend netdev;
  DpdkBackend dpdk;

  Backend& of(const DeviceConfig& device) { return *pick(*this, device); }
  const Backend& of(const DeviceConfig& device) const { return *pick(*this, device); }

 private:
  template <typename Self>
  static auto pick(Self& self, const DeviceConfig& device)
      -> std::conditional_t<std::is_const_v<Self>, const Backend*, Backend*> {
    if (device.backend == BackendKind::dpdk) return &self.dpdk;
    if (device.backend == BackendKind::software) return &self.software;
    if (device.attach == Attach::virtioVdpa) return &self.netdev;
    return &self.kernel;
  }
};

}  // namespace vdpa::datapath
