// The HTTP server of a daemon's metrics port.
//
// It is civetweb 1.15 (Debian 12) below prometheus-cpp: one thread serves one connection at a time.
// By default a client that sends half a request occupies its thread for 30 s, so this sets limits:
// a few threads, and a short time for a request.
#pragma once

#include <memory>
#include <string>

namespace prometheus {
class Exposer;
}

namespace vdpa {

// The help text of a metric of release 0.1.0, which is served for one release more.
std::string deprecated(const std::string& help, const std::string& replacement);

// Serves on `address`, "HOST:PORT" or "PORT". Throws std::runtime_error naming the address.
std::unique_ptr<prometheus::Exposer> serveMetrics(const std::string& address);

}  // namespace vdpa
