// Prometheus metrics, collected when they are scraped: nothing is counted twice.
#pragma once

#include <memory>
#include <string>

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
  // Serves http://`address`/metrics; nothing if the address is empty.
  Metrics(Datapath& datapath, const std::string& address);
  ~Metrics();

  void attachDone(double seconds, bool succeeded);

 private:
  class Collector;

  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Histogram>* durations_;
  std::shared_ptr<Collector> collector_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace vdpa::datapath
