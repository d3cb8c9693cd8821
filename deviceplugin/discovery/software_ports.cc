// See the header.
#include "deviceplugin/discovery/software_ports.h"

#include "common/naming.h"

namespace vdpa {

std::vector<Device> findSoftwarePorts(const ResourceConfig& resource) {
  std::vector<Device> devices;
  for (unsigned i = 0; i < resource.software.ports; ++i)
    devices.push_back({softwareDeviceId(resource.name, i), Backend::software});
  return devices;
}

}  // namespace vdpa
