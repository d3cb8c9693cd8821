// What the plugin counts, and release 0.1.0's Prometheus metrics of it, which are deprecated:
// vdpa-exporter serves others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/mutex.h"

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
  struct Counts {
    uint64_t registrations = 0;
    uint64_t allowed = 0, refused = 0;  // Allocate calls
  };
  struct ConfigLoad {
    bool good = false;
    int64_t time = 0;  // seconds since 1970
  };

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

  Counts countsOf(const std::string& resource);
  ConfigLoad lastLoad() const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& allocations_;
  prometheus::Family<prometheus::Counter>& registrations_;
  prometheus::Family<prometheus::Counter>& configLoads_;
  prometheus::Family<prometheus::Gauge>& devices_;
  prometheus::Family<prometheus::Gauge>& registered_;
  mutable Mutex mutex_;
  ConfigLoad lastLoad_ GUARDED_BY(mutex_);
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace vdpa::plugin
