#include "deviceplugin/kubelet/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <memory>
#include <string>

#include "common/metrics_server.h"

namespace vdpa::plugin {

Metrics::Metrics(const std::string& address)
    : registry_(std::make_shared<prometheus::Registry>()),
      allocations_(prometheus::BuildCounter()
                       .Name("vdpa_allocations_total")
                       .Help("Allocate calls of the kubelet, by resource and result")
                       .Register(*registry_)),
      registrations_(prometheus::BuildCounter()
                         .Name("vdpa_registrations_total")
                         .Help("Successful registrations with the kubelet, by resource")
                         .Register(*registry_)),
      configLoads_(prometheus::BuildCounter()
                       .Name("vdpa_config_loads_total")
                       .Help("Times the configuration was read, by result")
                       .Register(*registry_)),
      devices_(prometheus::BuildGauge()
                   .Name("vdpa_devices")
                   .Help("Offered devices, by resource and health")
                   .Register(*registry_)),
      registered_(prometheus::BuildGauge()
                      .Name("vdpa_registered")
                      .Help("1 while the resource is registered with the kubelet, by resource")
                      .Register(*registry_)) {
  if (address.empty()) return;
  exposer_ = serveMetrics(address);
  exposer_->RegisterCollectable(registry_);
}

Metrics::~Metrics() = default;

void Metrics::allocated(const std::string& resource, bool allowed) {
  allocations_.Add({{"resource", resource}, {"result", allowed ? "allowed" : "refused"}})
      .Increment();
}

void Metrics::registered(const std::string& resource) {
  registrations_.Add({{"resource", resource}}).Increment();
}

void Metrics::configLoaded(bool good) {
  configLoads_.Add({{"result", good ? "good" : "refused"}}).Increment();
}

void Metrics::devices(const std::string& resource, bool registered, size_t healthy, size_t all) {
  registered_.Add({{"resource", resource}}).Set(registered ? 1 : 0);
  devices_.Add({{"resource", resource}, {"health", "Healthy"}}).Set(static_cast<double>(healthy));
  devices_.Add({{"resource", resource}, {"health", "Unhealthy"}})
      .Set(static_cast<double>(all - healthy));
}

void Metrics::withdrawn(const std::string& resource) {
  for (const char* health : {"Healthy", "Unhealthy"})
    devices_.Remove(&devices_.Add({{"resource", resource}, {"health", health}}));
  registered_.Remove(&registered_.Add({{"resource", resource}}));
}

}  // namespace vdpa::plugin
