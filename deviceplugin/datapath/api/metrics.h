// The durations of calls, and release 0.1.0's Prometheus metrics, which are deprecated:
// vdpa-exporter serves others. Both are collected when they are read: nothing is counted twice.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/datapath.h"

namespace prometheus {
class Exposer;
class Histogram;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace vdpa::datapath {

class Metrics {
 public:
  // Calls with one result.
  struct Durations {
    std::string result;            // "ok", "failed"
    std::vector<double> bounds;    // seconds, increasing
    std::vector<uint64_t> counts;  // of calls up to each bound, and then of all
    double sum = 0;                // seconds
  };

  // Serves http://`address`/metrics; nothing if the address is empty.
  Metrics(Datapath& datapath, const std::string& address);
  ~Metrics();

  // From any thread.
  void attachDone(double seconds, bool succeeded);
  void detachDone(double seconds, bool succeeded);
  std::vector<Durations> attaches() const;
  std::vector<Durations> detaches() const;

 private:
  class Collector;

  using Family = prometheus::Family<prometheus::Histogram>;

  std::shared_ptr<prometheus::Registry> registry_;  // of 0.1.0's metrics
  std::shared_ptr<prometheus::Registry> others_;
  Family& attaches_;
  Family& detaches_;
  std::shared_ptr<Collector> collector_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace vdpa::datapath
