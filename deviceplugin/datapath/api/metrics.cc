#include "deviceplugin/datapath/api/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/metrics_server.h"
#include "deviceplugin/datapath/attachments/datapath.h"

namespace vdpa::datapath {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

const prometheus::Histogram::BucketBoundaries kSeconds{0.01, 0.025, 0.05, 0.1, 0.25,
                                                       0.5,  1,     2.5,  5,   10};

MetricFamily family(const char* name, const char* replacement, const char* help, MetricType type) {
  MetricFamily result;
  result.name = name;
  result.help = deprecated(help, replacement);
  result.type = type;
  return result;
}

void add(MetricFamily& family, double value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Gauge)
    metric.gauge.value = value;
  else
    metric.counter.value = value;
  family.metric.push_back(std::move(metric));
}

prometheus::Histogram& durationsOf(prometheus::Family<prometheus::Histogram>& calls,
                                   bool succeeded) {
  return calls.Add({{"result", succeeded ? "ok" : "failed"}}, kSeconds);
}

std::vector<Metrics::Durations> readDurations(
    const prometheus::Family<prometheus::Histogram>& calls) {
  std::vector<Metrics::Durations> all;
  for (const auto& family : calls.Collect())
    for (const auto& metric : family.metric) {
      Metrics::Durations durations{metric.label.front().value, kSeconds, {}, 0};
      for (const auto& bucket : metric.histogram.bucket)  // the last has no bound
        durations.counts.push_back(bucket.cumulative_count);
      durations.sum = metric.histogram.sample_sum;
      all.push_back(std::move(durations));
    }
  return all;
}

}  // namespace

class Metrics::Collector : public prometheus::Collectable {
 public:
  explicit Collector(Datapath& datapath) : datapath_(datapath) {}

  std::vector<MetricFamily> Collect() const override {
    auto attached = family("vdpa_attachments", "count(vdpa_attachment_info)",
                           "Devices attached to pods.", MetricType::Gauge);
    auto healthy =
        family("vdpa_devices", "vdpa_resource_devices", "Devices by health.", MetricType::Gauge);
    auto engines =
        family("vdpa_engine_deaths_total", "vdpa_engine_restarts_total",
               "Unexpected exits of vdpa-switch and vdpa-pmd processes.", MetricType::Counter);
    auto workers = family("vdpa_worker_deaths_total", "vdpa_worker_restarts_total",
                          "Unexpected exits of an attached device's worker.", MetricType::Counter);
    auto packets = family("vdpa_device_packets_total",
                          "vdpa_device_receive_packets_total, vdpa_device_transmit_packets_total",
                          "Packets, as the pod sees them.", MetricType::Counter);
    auto bytes = family("vdpa_device_bytes_total",
                        "vdpa_device_receive_bytes_total, vdpa_device_transmit_bytes_total",
                        "Bytes, as the pod sees them.", MetricType::Counter);
    auto drops = family("vdpa_device_dropped_packets_total", "vdpa_device_drops_total",
                        "Packets dropped, by reason.", MetricType::Counter);

    auto abandoned = family("vdpa_abandoned_attachments", "vdpa_attachments_abandoned",
                            "Orphaned attachments waiting to be detached.", MetricType::Gauge);
    auto released =
        family("vdpa_reconciliation_detached_total", "vdpa_attachments_reconciled_total",
               "Orphaned attachments that were detached.", MetricType::Counter);
    auto withheld = family("vdpa_withheld_devices", "vdpa_resource_devices",
                           "Devices whose owner record cannot be read; see vdpactl attachments.",
                           MetricType::Gauge);

    const auto list = datapath_.status.list();
    add(withheld, datapath_.status.withheldDevices());
    add(attached, static_cast<double>(list.size()) - withheld.metric[0].gauge.value);
    const auto counts = datapath_.node.orphans.counts();
    add(abandoned, counts.abandoned);
    add(released, counts.detached);
    for (const auto& live : list)
      add(workers, live.workerDeaths, {{"device", live.attachment.deviceId}});
    double up = 0, down = 0;
    for (const auto& state : datapath_.status.deviceStates()) (state.healthy ? up : down) += 1;
    add(healthy, up, {{"healthy", "true"}});
    add(healthy, down, {{"healthy", "false"}});
    add(engines, datapath_.status.engineDeaths());
    for (const auto& device : datapath_.status.counters({})) {
      const ClientMetric::Label id{"device", device.id};
      add(packets, static_cast<double>(device.rxPackets), {id, {"direction", "rx"}});
      add(packets, static_cast<double>(device.txPackets), {id, {"direction", "tx"}});
      add(bytes, static_cast<double>(device.rxBytes), {id, {"direction", "rx"}});
      add(bytes, static_cast<double>(device.txBytes), {id, {"direction", "tx"}});
      for (const auto& [reason, count] : device.drops)
        add(drops, static_cast<double>(count), {id, {"reason", reason}});
    }
    return {attached, healthy, engines,   workers,  packets,
            bytes,    drops,   abandoned, released, withheld};
  }

 private:
  Datapath& datapath_;
};

Metrics::Metrics(Datapath& datapath, const std::string& address)
    : registry_(std::make_shared<prometheus::Registry>()),
      others_(std::make_shared<prometheus::Registry>()),
      attaches_(prometheus::BuildHistogram()
                    .Name("vdpa_attach_seconds")
                    .Help(deprecated("Duration of Attach calls.", "vdpa_attach_duration_seconds"))
                    .Register(*registry_)),
      detaches_(
          prometheus::BuildHistogram().Name("vdpa_detach_duration_seconds").Register(*others_)),
      collector_(std::make_shared<Collector>(datapath)) {
  for (Family* calls : {&attaches_, &detaches_})
    for (const bool succeeded : {true, false}) durationsOf(*calls, succeeded);
  if (address.empty()) return;
  exposer_ = serveMetrics(address);
  exposer_->RegisterCollectable(registry_);
  exposer_->RegisterCollectable(collector_);
  log::info("deprecated metrics on http://{}/metrics", address);
}

Metrics::~Metrics() = default;

void Metrics::attachDone(double seconds, bool succeeded) {
  durationsOf(attaches_, succeeded).Observe(seconds);
}

void Metrics::detachDone(double seconds, bool succeeded) {
  durationsOf(detaches_, succeeded).Observe(seconds);
}

std::vector<Metrics::Durations> Metrics::attaches() const {
  return readDurations(attaches_);
}

std::vector<Metrics::Durations> Metrics::detaches() const {
  return readDurations(detaches_);
}

}  // namespace vdpa::datapath
