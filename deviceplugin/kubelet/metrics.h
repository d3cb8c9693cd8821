// The plugin's Prometheus metrics; without an address they are only counted.
#pragma once

#include <memory>
#include <string>

namespace prometheus {
class Counter;
class Exposer;
class Gauge;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace vdpa::plugin {

class Metrics {
 public:
  // `address` is HOST:PORT; empty: no server. Throws std::runtime_error if it can't listen there.
  explicit Metrics(const std::string& address);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // From any thread.
  void allocated(const std::string& resource, bool allowed);
  void registered(const std::string& resource);
  void configLoaded(bool good);
  void devices(const std::string& resource, bool registered, size_t healthy, size_t all);
  void withdrawn(const std::string& resource);  // removes its gauges

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& allocations_;
  prometheus::Family<prometheus::Counter>& registrations_;
  prometheus::Family<prometheus::Counter>& configLoads_;
  prometheus::Family<prometheus::Gauge>& devices_;
  prometheus::Family<prometheus::Gauge>& registered_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace vdpa::plugin
