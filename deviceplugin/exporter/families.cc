#include "deviceplugin/exporter/families.h"

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>
#include <prometheus/metric_type.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/version.h"
#include "deviceplugin/exporter/daemons.h"
#include "observe.pb.h"

namespace vdpa::exporter {
namespace {

using observe::v1::Datapath;
using observe::v1::Plugin;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

using Labels = std::vector<ClientMetric::Label>;

class Family {
 public:
  Family(const char* name, const char* help, MetricType type) {
    family_.name = name;
    family_.help = help;
    family_.type = type;
  }

  void add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    metric.counter.value = value;  // one of the two is used
    family_.metric.push_back(std::move(metric));
  }
  template <typename Number>
  void add(Labels labels, Number value) {
    add(std::move(labels), static_cast<double>(value));
  }
  void add(const observe::v1::Durations& durations) {
    ClientMetric metric;
    metric.label = {{"result", durations.result()}};
    metric.histogram.sample_sum = durations.sum();
    for (int i = 0; i < durations.counts_size(); ++i) {
      metric.histogram.sample_count = durations.counts(i);
      const double bound = i < durations.bounds_size() ? durations.bounds(i)
                                                       : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({durations.counts(i), bound});
    }
    family_.metric.push_back(std::move(metric));
  }

  MetricFamily take() { return std::move(family_); }
  bool empty() const { return family_.metric.empty(); }

 private:
  MetricFamily family_;
};

Family gauge(const char* name, const char* help) {
  return {name, help, MetricType::Gauge};
}
Family counter(const char* name, const char* help) {
  return {name, help, MetricType::Counter};
}

class Families {
 public:
  void add(Family family) {
    if (!family.empty()) families_.push_back(family.take());
  }
  void add(std::initializer_list<Family*> families) {
    for (Family* family : families) add(std::move(*family));
  }
  std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

// A device's state in vdpa_resource_devices; the first that fits.
enum class State { withheld, unhealthy, attached, held, free };
constexpr std::array<const char*, 5> kStates{"withheld", "unhealthy", "attached", "held", "free"};

void addStates(Families& families, const Plugin& plugin, const Datapath& datapath) {
  std::set<std::string_view> attached;
  for (const auto& attachment : datapath.attachments()) attached.insert(attachment.device());
  const std::set<std::string_view> withheld(datapath.withheld().begin(), datapath.withheld().end());
  auto devices = gauge("vdpa_resource_devices", "Devices by state; each counts once.");
  for (const auto& resource : plugin.resources()) {
    std::array<unsigned, kStates.size()> counts{};
    for (const auto& device : resource.devices()) {
      const State state = withheld.contains(device.id())   ? State::withheld
                          : !device.healthy()              ? State::unhealthy
                          : attached.contains(device.id()) ? State::attached
                          : device.held()                  ? State::held
                                                           : State::free;
      ++counts[static_cast<size_t>(state)];
    }
    for (size_t state = 0; state < kStates.size(); ++state)
      devices.add({{"resource", resource.name()}, {"state", kStates[state]}}, counts[state]);
  }
  families.add(std::move(devices));
}

void addPlugin(Families& families, const Plugin& plugin) {
  auto registered = gauge("vdpa_resource_registered",
                          "1 while the resource is registered with the kubelet, else 0.");
  auto registrations =
      counter("vdpa_kubelet_registrations_total", "Successful registrations with the kubelet.");
  auto allocations =
      counter("vdpa_kubelet_allocations_total", "Allocate calls of the kubelet, by result.");
  auto info = gauge("vdpa_device_info", "An offered device; always 1.");
  auto healthy = gauge("vdpa_device_healthy", "1 if the kubelet may allocate the device, else 0.");
  for (const auto& resource : plugin.resources()) {
    const ClientMetric::Label name{"resource", resource.name()};
    registered.add({name}, resource.registered() ? 1 : 0);
    registrations.add({name}, resource.registrations());
    allocations.add({name, {"result", "allowed"}}, resource.allocations_allowed());
    allocations.add({name, {"result", "refused"}}, resource.allocations_refused());
    for (const auto& device : resource.devices()) {
      info.add({{"device", device.id()},
                name,
                {"backend", device.backend()},
                {"attach", device.attach()},
                {"pci_address", device.pci_address()},
                {"pf", device.pf()},
                {"numa_node",
                 device.has_numa_node() ? std::to_string(device.numa_node()) : std::string()}},
               1);
      healthy.add({{"device", device.id()}, name}, device.healthy() ? 1 : 0);
    }
  }
  auto successful = gauge("vdpa_config_last_load_successful",
                          "1 if the configuration was accepted when it was read last, else 0.");
  auto time =
      gauge("vdpa_config_last_load_timestamp_seconds", "When the configuration was read last.");
  if (plugin.has_last_load()) {
    successful.add({}, plugin.last_load().successful() ? 1 : 0);
    time.add({}, plugin.last_load().time());
  }
  families.add({&registered, &registrations, &allocations, &info, &healthy, &successful, &time});
}

void addAttachments(Families& families, const Datapath& datapath) {
  auto info = gauge("vdpa_attachment_info", "A device that a pod's interface has; always 1.");
  auto created =
      gauge("vdpa_attachment_created_timestamp_seconds", "When the device was attached.");
  auto restarts =
      counter("vdpa_worker_restarts_total", "Unexpected ends of the attached device's worker.");
  for (const auto& attachment : datapath.attachments()) {
    const ClientMetric::Label device{"device", attachment.device()};
    const ClientMetric::Label resource{"resource", attachment.resource()};
    info.add({device,
              resource,
              {"namespace", attachment.pod_namespace()},
              {"pod", attachment.pod_name()},
              {"network", attachment.network()},
              {"interface", attachment.interface()},
              {"vlan", attachment.has_vlan() ? std::to_string(attachment.vlan()) : std::string()},
              {"state", attachment.state()}},
             1);
    created.add({device, resource}, attachment.created());
    restarts.add({device, resource}, attachment.worker_restarts());
  }
  auto abandoned =
      gauge("vdpa_attachments_abandoned", "Attachments whose pod is gone, waiting to be detached.");
  abandoned.add({}, datapath.abandoned());
  auto reconciled =
      counter("vdpa_attachments_reconciled_total", "Abandoned attachments that were detached.");
  reconciled.add({}, datapath.reconciled());
  families.add({&info, &created, &restarts, &abandoned, &reconciled});
}

// Protobuf's maps have no order.
template <typename Map>
std::map<std::string, uint64_t> sorted(const Map& counts) {
  return {counts.begin(), counts.end()};
}

void addTraffic(Families& families, const Datapath& datapath) {
  auto rxPackets = counter("vdpa_device_receive_packets_total", "Packets that the pod received.");
  auto rxBytes = counter("vdpa_device_receive_bytes_total", "Bytes that the pod received.");
  auto txPackets = counter("vdpa_device_transmit_packets_total", "Packets that the pod sent.");
  auto txBytes = counter("vdpa_device_transmit_bytes_total", "Bytes that the pod sent.");
  auto drops = counter("vdpa_device_drops_total", "Packets dropped, by reason.");
  for (const auto& traffic : datapath.traffic()) {
    const Labels device{{"device", traffic.device()}, {"resource", traffic.resource()}};
    rxPackets.add(device, traffic.rx_packets());
    rxBytes.add(device, traffic.rx_bytes());
    txPackets.add(device, traffic.tx_packets());
    txBytes.add(device, traffic.tx_bytes());
    for (const auto& [reason, count] : sorted(traffic.drops()))
      drops.add({device[0], device[1], {"reason", reason}}, count);
  }
  auto events = counter("vdpa_device_queue_events_total",
                        "What the device's driver counts for each virtqueue.");
  for (const auto& queue : datapath.queue_events())
    for (const auto& [event, count] : sorted(queue.events()))
      events.add({{"device", queue.device()},
                  {"resource", queue.resource()},
                  {"queue", std::to_string(queue.queue())},
                  {"event", event}},
                 count);
  families.add({&rxPackets, &rxBytes, &txPackets, &txBytes, &drops, &events});
}

void addProcesses(Families& families, const Datapath& datapath) {
  auto engines =
      counter("vdpa_engine_restarts_total", "Unexpected ends of a vdpa-switch or vdpa-pmd.");
  for (const auto& engine : datapath.engines())
    engines.add({{"program", engine.program()},
                 {"resource", engine.resource()},
                 {"device", engine.device()}},
                engine.restarts());
  auto busy = counter("vdpa_poller_busy_seconds_total",
                      "Time that a polling thread of a switch spent on packets.");
  for (const auto& poller : datapath.pollers())
    busy.add({{"resource", poller.resource()},
              {"poller", std::to_string(poller.number())},
              {"core", poller.has_core() ? std::to_string(poller.core()) : std::string()}},
             static_cast<double>(poller.busy_ns()) / 1e9);
  auto used = gauge("vdpa_memory_used_bytes", "Memory of all workers and switches together.");
  auto limit = gauge("vdpa_memory_limit_bytes", "The limit of that memory.");
  auto kills = counter("vdpa_memory_kills_total",
                       "Workers and switches that the kernel killed at that limit.");
  if (datapath.has_memory()) {
    used.add({}, datapath.memory().used());
    if (datapath.memory().has_limit()) limit.add({}, datapath.memory().limit());
    kills.add({}, datapath.memory().kills());
  }
  families.add({&engines, &busy, &used, &limit, &kills});
}

void addCalls(Families& families, const Datapath& datapath) {
  Family attaches("vdpa_attach_duration_seconds", "Duration of Attach calls.",
                  MetricType::Histogram);
  Family detaches("vdpa_detach_duration_seconds", "Duration of Detach calls.",
                  MetricType::Histogram);
  for (const auto& durations : datapath.attaches()) attaches.add(durations);
  for (const auto& durations : datapath.detaches()) detaches.add(durations);
  auto cni = counter("vdpa_cni_calls_total",
                     "Calls of the CNI plugin since the node started, by command and error code.");
  for (const auto& calls : datapath.cni_calls())
    cni.add({{"command", calls.command()}, {"code", std::to_string(calls.code())}}, calls.count());
  auto drained = gauge("vdpa_drained", "1 after vdpactl drain, else 0.");
  drained.add({}, datapath.drained() ? 1 : 0);
  families.add({&attaches, &detaches, &cni, &drained});
}

}  // namespace

std::vector<MetricFamily> familiesOf(const Node& node) {
  Families families;
  auto up = gauge("vdpa_up", "1 if the daemon answered this scrape, else 0.");
  up.add({{"daemon", "device-plugin"}}, node.plugin ? 1 : 0);
  up.add({{"daemon", "datapath"}}, node.datapath ? 1 : 0);
  auto build = gauge("vdpa_build_info", "The release of each program; always 1.");
  const auto addBuild = [&](const char* program, const std::string& version) {
    build.add({{"program", program}, {"version", version}}, 1);
  };
  addBuild("vdpa-exporter", programVersion());
  if (node.plugin) addBuild("vdpa-device-plugin", node.plugin->version());
  if (node.datapath) addBuild("vdpa-datapath", node.datapath->version());
  families.add({&up, &build});
  if (node.plugin && node.datapath)
    addStates(families, node.plugin->plugin(), node.datapath->datapath());
  if (node.plugin) addPlugin(families, node.plugin->plugin());
  if (node.datapath) {
    const auto& datapath = node.datapath->datapath();
    addAttachments(families, datapath);
    addTraffic(families, datapath);
    addProcesses(families, datapath);
    addCalls(families, datapath);
  }
  return families.take();
}

std::string textOf(const std::vector<MetricFamily>& families) {
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace vdpa::exporter
