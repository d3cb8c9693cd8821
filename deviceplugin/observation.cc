#include "deviceplugin/observation.h"

#include <map>
#include <set>
#include <string>

#include "common/backend.h"
#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/kubelet/resource_plugins.h"
#include "observe.pb.h"

namespace vdpa::plugin {

observe::v1::Plugin observationOf(const ResourcePlugins& plugins,
                                  const std::set<PodWatch::DeviceKey>& held, Metrics& metrics) {
  observe::v1::Plugin observation;
  std::map<std::string, bool> registered;
  for (const auto& summary : plugins.summaries()) registered[summary.resource] = summary.registered;
  for (const auto& [config, devices] : plugins.offers()) {
    const std::string name = config.fullName();
    auto& resource = *observation.add_resources();
    resource.set_name(name);
    resource.set_registered(registered[name]);
    const auto counts = metrics.countsOf(name);
    resource.set_registrations(counts.registrations);
    resource.set_allocations_allowed(counts.allowed);
    resource.set_allocations_refused(counts.refused);
    for (const auto& from : devices) {
      auto& device = *resource.add_devices();
      device.set_id(from.id);
      device.set_backend(nameOf(from.backend));
      device.set_attach(nameOf(from.attach));
      device.set_pci_address(from.pciAddress);
      device.set_pf(from.pfName);
      if (from.numaNode >= 0) device.set_numa_node(from.numaNode);
      device.set_healthy(plugins.healthOf(name, from.id).healthy);
      device.set_held(held.contains({name, from.id}));
    }
  }
  const auto load = metrics.lastLoad();
  observation.mutable_last_load()->set_successful(load.good);
  observation.mutable_last_load()->set_time(load.time);
  return observation;
}

}  // namespace vdpa::plugin
