#include "deviceplugin/kubelet/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <string>

#include "common/metrics_server.h"
#include "common/mutex.h"

namespace vdpa::plugin {
namespace {

constexpr const char* kAllowed = "allowed";
constexpr const char* kRefused = "refused";

}  // namespace

Metrics::Metrics(const std::string& address)
    : registry_(std::make_shared<prometheus::Registry>()),
      allocations_(prometheus::BuildCounter()
                       .Name("vdpa_allocations_total")
                       .Help(deprecated("Allocate calls of the kubelet, by resource and result",
                                        "vdpa_kubelet_allocations_total"))
                       .Register(*registry_)),
      registrations_(prometheus::BuildCounter()
                         .Name("vdpa_registrations_total")
                         .Help(deprecated("Successful registrations with the kubelet, by resource",
                                          "vdpa_kubelet_registrations_total"))
                         .Register(*registry_)),
      configLoads_(prometheus::BuildCounter()
                       .Name("vdpa_config_loads_total")
                       .Help(deprecated("Times the configuration was read, by result",
                                        "vdpa_config_last_load_successful"))
                       .Register(*registry_)),
      devices_(
          prometheus::BuildGauge()
              .Name("vdpa_devices")
              .Help(deprecated("Offered devices, by resource and health", "vdpa_resource_devices"))
              .Register(*registry_)),
      registered_(
          prometheus::BuildGauge()
              .Name("vdpa_registered")
              .Help(deprecated("1 while the resource is registered with the kubelet, by resource",
                               "vdpa_resource_registered"))
              .Register(*registry_)) {
  if (address.empty()) return;
  exposer_ = serveMetrics(address);
  exposer_->RegisterCollectable(registry_);
}

Metrics::~Metrics() = default;

void Metrics::allocated(const std::string& resource, bool allowed) {
  allocations_.Add({{"resource", resource}, {"result", allowed ? kAllowed : kRefused}}).Increment();
}

void Metrics::registered(const std::string& resource) {
  registrations_.Add({{"resource", resource}}).Increment();
}

void Metrics::configLoaded(bool good) {
  configLoads_.Add({{"result", good ? "good" : "refused"}}).Increment();
  Lock lock(mutex_);
  lastLoad_ = {good, std::time(nullptr)};
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

Metrics::Counts Metrics::countsOf(const std::string& resource) {
  const auto read = [&](auto& family, const std::map<std::string, std::string>& labels) {
    return static_cast<uint64_t>(family.Add(labels).Value());
  };
  return {read(registrations_, {{"resource", resource}}),
          read(allocations_, {{"resource", resource}, {"result", kAllowed}}),
          read(allocations_, {{"resource", resource}, {"result", kRefused}})};
}

Metrics::ConfigLoad Metrics::lastLoad() const {
  Lock lock(mutex_);
  return lastLoad_;
}

}  // namespace vdpa::plugin
