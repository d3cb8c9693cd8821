// vdpa-exporter: serves Prometheus metrics of this node's daemons. It needs no rights: it reads two
// sockets that change nothing, and listens on a port.
#include <fmt/core.h>
#include <malloc.h>
#include <sys/epoll.h>

#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "common/command_line.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/exporter/daemons.h"
#include "deviceplugin/exporter/families.h"
#include "deviceplugin/exporter/http_server.h"

namespace vdpa::exporter {
namespace {

int run(int argc, char** argv) {
  std::string directory = "/run/vdpa/observe", address = ":9466", level = "info", format = "text";
  CommandLine app(
      "Serves Prometheus metrics of this node: at /metrics, what vdpa-device-plugin and\n"
      "vdpa-datapath show in their directory of read-only sockets.\n");
  app.version(programVersion());
  app.option("--observe-dir", directory, "the daemons' sockets").showDefault();
  app.option("--metrics-address", address, "HOST:PORT, or :PORT for all addresses").showDefault();
  app.option("--log-level", level, "trace, debug, info, warning, error or off").showDefault();
  app.option("--log-format", format, "text or json").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  initLogging("vdpa-exporter", level, format);
  ::mallopt(M_ARENA_MAX, 2);  // gRPC's threads would each get an arena of their own
  EventLoop loop;
  const UniqueFd signals = takeStopSignals();
  const EventLoop::Watch watch(loop, signals.get(), EPOLLIN, [&](uint32_t) { loop.stop(); });
  Daemons daemons(loop, directory);
  HttpServer server(loop, listenTcp(address),
                    [&](HttpServer::Done done) {
                      daemons.read([done = std::move(done)](const Node& node) {
                        done(textOf(familiesOf(node)));
                      });
                    },
                    {});
  log::info("serving metrics of {} on {}", directory, address);
  loop.run();
  loop.waitForTickets();
  return 0;
}

}  // namespace
}  // namespace vdpa::exporter

int main(int argc, char** argv) {
  try {
    return vdpa::exporter::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-exporter: {}\n", error.what());
    return 1;
  }
}
