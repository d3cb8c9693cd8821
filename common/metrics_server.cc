#include "common/metrics_server.h"

#include <CivetServer.h>
#include <civetweb.h>
#include <fmt/core.h>
#include <prometheus/exposer.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace vdpa {
namespace {

// With keep-alive, civetweb reads a request's announced body after the answer, for as long as the
// client sends a byte within each timeout.
int leaveBodyUnread(mg_connection* connection) {
  mg_disable_connection_keep_alive(connection);
  return 0;  // civetweb continues with the request
}

}  // namespace

std::string deprecated(const std::string& help, const std::string& replacement) {
  return fmt::format("Deprecated, use vdpa-exporter's {}. {}", replacement, help);
}

std::unique_ptr<prometheus::Exposer> serveMetrics(const std::string& address) {
  // request_timeout_ms counts from when a thread accepts the connection until the header is
  // complete, and again for each write. A scraper sends its request in one segment.
  const std::vector<std::string> options{"listening_ports",    address, "num_threads", "4",
                                         "request_timeout_ms", "1000"};
  CivetCallbacks callbacks;
  callbacks.begin_request = leaveBodyUnread;
  try {
    return std::make_unique<prometheus::Exposer>(options, &callbacks);
  } catch (const std::exception& error) {
    throw std::runtime_error(fmt::format("cannot serve metrics on {}: {}", address, error.what()));
  }
}

}  // namespace vdpa
