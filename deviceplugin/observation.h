// What vdpa-exporter is shown of the plugin.
#pragma once

#include <set>

#include "deviceplugin/kubelet/metrics.h"
#include "deviceplugin/kubelet/pod_watch.h"
#include "deviceplugin/kubelet/resource_plugins.h"

namespace vdpa::observe::v1 {
class Plugin;
}

namespace vdpa::plugin {

// `held`: the devices that pods have, as the kubelet lists them. Loop thread only.
observe::v1::Plugin observationOf(const ResourcePlugins& plugins,
                                  const std::set<PodWatch::DeviceKey>& held, Metrics& metrics);

}  // namespace vdpa::plugin
